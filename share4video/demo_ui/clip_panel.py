"""The clip: upload, examples, player. Both tabs are about what is chosen here."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from share4video.demo_ui import markup
from share4video.demo_ui.examples import Example
from share4video.demo_ui.page import Page
from share4video.demo_ui.pictures import Picture
from share4video.demo_ui.session import Session
from share4video.demo_ui.settings import GRID_FRAMES_BOUNDS
from share4video.demo_ui.widgets import clip_player, clip_upload
from share4video.errors import UserError

_TAKEN = ["video", "image", ".mkv", ".ts", ".m2ts", ".mts", ".flv"]


class ClipPanel:
    """The left column. `connect` it once the tabs are there."""

    def __init__(self, page: Page, examples: Sequence[Example], session: gr.State) -> None:
        self._page, self._examples, self._session = page, examples, session
        self.upload = clip_upload(
            show_label=False, file_types=_TAKEN, height=104, elem_id="s4v-upload", file_count="single"
        )
        if examples:
            gr.HTML(markup.heading("or take an example"), elem_classes="s4v-line")
        self.gallery = gr.Gallery(
            [(str(one.poster), one.name) for one in examples],
            show_label=False,
            columns=4,
            height="auto",
            allow_preview=False,
            object_fit="cover",
            interactive=False,
            buttons=[],
            container=False,
            elem_id="s4v-examples",
            visible=bool(examples),
        )
        self.notice = gr.HTML(elem_id="s4v-clip-notice", elem_classes="s4v-line")
        self.player = clip_player(
            show_label=False, visible=False, height=230, buttons=[], elem_id="s4v-player"
        )
        self.facts = gr.HTML(elem_id="s4v-facts", elem_classes="s4v-line")
        with gr.Accordion("What the chat model is shown", open=True, visible=False) as self.model_sees:
            self.grid = gr.Image(
                show_label=False,
                interactive=False,
                format="png",
                container=False,
                buttons=["fullscreen"],
                elem_id="s4v-grid",
            )

    def connect(
        self,
        frames: gr.Slider,
        shown: Sequence[Any],
        begin: Callable[[Session], list[Any]],
        running: Sequence[Any],
    ) -> None:
        """Make a choice take effect.

        Args:
            frames: of the grid.
            shown: the tabs' outputs.
            begin: gives each of them its value for a new clip.
            running: the tabs' events, which another clip ends.
        """
        self._begin = begin
        outputs = [self.player, self.facts, self.notice, self.grid, self.model_sees, self._session, *shown]
        private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "clip"}
        frames.release(
            self._composed,
            [frames, self._session],
            [self.grid, self.facts, self.notice, self._session],
            **private,
        )
        ending = {**private, "cancels": list(running)}
        self.upload.upload(self._uploaded, [self.upload, frames, self._session], outputs, **ending)
        self.upload.clear(self._cleared, [self._session], outputs, **ending)
        self.gallery.select(self._taken, [frames, self._session], [self.upload, *outputs], **ending)

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

    async def _composed(self, frames: float, session: Session) -> list[Any]:
        """Lay the clip's grid out anew; what was said of it stays."""
        talk = session.talk
        if session.path is None or talk.picture is None or not talk.picture.is_grid:
            return [gr.skip(), gr.skip(), gr.skip(), session]
        choice = session.choose()
        try:
            picture = await self._page.picture(session.path, bounded_frames(frames))
        except UserError as error:
            if session.choice != choice:
                return [gr.skip(), gr.skip(), gr.skip(), session]
            return [gr.skip(), gr.skip(), markup.complaint(error), session]
        if session.choice != choice:
            return [gr.skip(), gr.skip(), gr.skip(), session]
        talk.picture = picture
        return [opened(talk.picture), markup.facts(talk.picture.facts), "", session]

    def _cleared(self, session: Session) -> list[Any]:
        session.about(None, None)
        return self._values(session)

    async def _show(
        self, path: Path | None, frames: float, session: Session
    ) -> AsyncGenerator[list[Any], None]:
        """Clear what was there, then show the clip once it is known what it is, unless another was chosen."""
        session.about(None, None)
        choice, said = session.choice, ""
        yield self._values(session, markup.notice("Reading the clip …"))
        try:
            if path is None:
                raise UserError("this is no uploaded file", fix="upload it again")
            picture = await self._page.picture(path, bounded_frames(frames))
            if session.choice == choice:
                session.about(path, picture)
                choice = session.choice
        except UserError as error:
            said = markup.complaint(error)
        if session.choice == choice:
            yield self._values(session, said)
        else:  # at its end, Gradio shows once more what a generator gave last
            yield [gr.skip() for _ in self._values(session)]

    def _values(self, session: Session, notice: str = "") -> list[Any]:
        """Return what every output shows of the visitor's clip."""
        picture = session.talk.picture
        video = session.path if picture is not None and picture.is_grid else None
        return [
            gr.update(value=None if video is None else str(video), visible=video is not None),
            markup.facts(picture.facts) if picture else "",
            notice,
            opened(picture),
            gr.update(visible=picture is not None),
            session,
            *self._begin(session),
        ]


def opened(picture: Picture | None) -> Image.Image | None:
    """Return the picture as the page shows it."""
    if picture is None:
        return None
    image = Image.open(io.BytesIO(picture.image))
    image.load()
    return image


def bounded_frames(frames: float) -> int:
    """Return a number of frames the grid may have."""
    least, most = GRID_FRAMES_BOUNDS
    return min(max(int(frames), least), most)
