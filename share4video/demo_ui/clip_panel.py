"""The clip: upload, examples, player. Both tabs are about what is chosen here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from share4video.demo_ui import markup
from share4video.demo_ui.examples import Example
from share4video.demo_ui.page import Page
from share4video.demo_ui.session import Session
from share4video.demo_ui.settings import GRID_FRAMES_BOUNDS
from share4video.demo_ui.widgets import ClipPlayer, ClipUpload
from share4video.errors import UserError

_TAKEN = ["video", "image", ".mkv", ".ts", ".m2ts", ".mts", ".flv"]


class ClipPanel:
    """The left column. `connect` it once the tabs are there."""

    def __init__(self, page: Page, examples: Sequence[Example], session: gr.State) -> None:
        self._page, self._examples, self._session = page, examples, session
        self.upload = ClipUpload(
            label="Video or image", file_types=_TAKEN, height=118, elem_id="s4v-upload", file_count="single"
        )
        self.notice = gr.HTML(elem_id="s4v-clip-notice")
        self.player = ClipPlayer(
            label="Clip", interactive=False, visible=False, height=250, elem_id="s4v-player", autoplay=False
        )
        self.facts = gr.HTML(elem_id="s4v-facts")
        self.gallery = gr.Gallery(
            [(str(one.poster), one.name) for one in examples],
            label="Or take an example",
            columns=2,
            height="auto",
            allow_preview=False,
            object_fit="cover",
            interactive=False,
            buttons=[],
            elem_id="s4v-examples",
            visible=bool(examples),
        )

    def connect(
        self, frames: gr.Slider, shown: Sequence[Any], begin: Callable[[Session], list[Any]]
    ) -> None:
        """Make a choice take effect.

        Args:
            frames: of the grid.
            shown: the tabs' outputs.
            begin: gives each of them its value for a new clip.
        """
        self._begin = begin
        outputs = [self.player, self.facts, self.notice, self._session, *shown]
        private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "clip"}
        self.upload.upload(self._uploaded, [self.upload, frames, self._session], outputs, **private)
        self.upload.clear(self._cleared, [self._session], outputs, **private)
        self.gallery.select(self._taken, [frames, self._session], [self.upload, *outputs], **private)

    async def _uploaded(
        self, given: str | None, frames: float, session: Session
    ) -> AsyncGenerator[list[Any], None]:
        path = self._page.uploaded(given)
        async for shown in self._show(path, frames, session):
            yield shown

    async def _taken(
        self, frames: float, session: Session, event: gr.SelectData
    ) -> AsyncGenerator[list[Any], None]:
        number = event.index if isinstance(event.index, int) else 0
        if 0 <= number < len(self._examples):
            async for shown in self._show(self._examples[number].path, frames, session):
                yield [None, *shown]

    def _cleared(self, session: Session) -> list[Any]:
        session.about(None, None)
        return [_player(None), "", "", session, *self._begin(session)]

    async def _show(self, path: Path | None, frames: float, session: Session) -> AsyncGenerator[list[Any], None]:
        """Clear what was there, then show the clip once it is known what it is."""
        session.about(None, None)
        reading = markup.notice("Reading the clip …")
        yield [_player(None), "", reading, session, *self._begin(session)]
        try:
            if path is None:
                raise UserError("this is no uploaded file", fix="upload it again")
            picture = await self._page.picture(path, _bounded(frames))
        except UserError as error:
            yield [_player(None), "", markup.complaint(error), session, *self._begin(session)]
            return
        session.about(path, picture)
        player = _player(path if picture.kind == "video" else None)
        yield [player, markup.facts(picture.facts), "", session, *self._begin(session)]


def _player(path: Path | None) -> Any:
    return gr.update(value=None if path is None else str(path), visible=path is not None)


def _bounded(frames: float) -> int:
    least, most = GRID_FRAMES_BOUNDS
    return min(max(int(frames), least), most)
