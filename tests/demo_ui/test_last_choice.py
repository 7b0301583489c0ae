"""A visitor's last choice wins, whatever of the ones before is still under way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from share4video.demo_ui.caption_tab import CaptionTab
from share4video.demo_ui.clip_panel import ClipPanel
from share4video.demo_ui.page import Page
from share4video.demo_ui.pictures import Picture, Uploads
from share4video.demo_ui.served import ServedModel
from share4video.demo_ui.session import Session
from share4video.demo_ui.settings import Bounds
from share4video.synthetic.clips import write_clip
from share4video.synthetic.world import sample_clip
from tests.engines import FakeEngine


@dataclass(frozen=True)
class HeldPage(Page):
    """A page on which a picture of some clips and grids is ready only when the test says so."""

    held: dict[Any, asyncio.Event] = field(default_factory=dict)

    async def picture(self, path: Path, frames: int) -> Picture:
        for key in (path.name, frames):
            if key in self.held:
                await self.held[key].wait()
        return await super().picture(path, frames)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("clips")
    for name, seed in (("a.mp4", 3), ("b.mp4", 15)):
        write_clip(folder / name, sample_clip(seed))
    return folder / "a.mp4", folder / "b.mp4"


def test_a_clip_that_is_read_late_does_not_replace_the_one_chosen_after_it(clips: tuple[Path, Path]) -> None:
    async def choose() -> None:
        page = HeldPage(None, None, None, Uploads(Bounds()), clips[0].parent, held={"a.mp4": asyncio.Event()})
        panel, session = _panel(page), Session()
        late = asyncio.create_task(_all(panel._show(clips[0], 4, session)))
        await asyncio.sleep(0)
        shown = await _all(panel._show(clips[1], 4, session))
        assert shown[-1][0]["value"] == str(clips[1])
        page.held["a.mp4"].set()
        assert (await late)[-1] == [gr.skip()] * len(shown[-1])
        assert session.path == clips[1]
        assert session.talk.picture is not None and "b.mp4" in session.talk.picture.facts

    asyncio.run(choose())


def test_a_grid_that_is_laid_out_late_is_not_shown(clips: tuple[Path, Path]) -> None:
    async def choose() -> None:
        page = HeldPage(None, None, None, Uploads(Bounds()), clips[0].parent, held={9: asyncio.Event()})
        panel, session = _panel(page), Session()
        await _all(panel._show(clips[0], 4, session))
        late = asyncio.create_task(panel._composed(9, session))
        await asyncio.sleep(0)
        await panel._composed(1, session)
        page.held[9].set()
        assert (await late)[:3] == [gr.skip()] * 3
        assert session.talk.picture is not None and "1 frames on the grid" in session.talk.picture.facts

    asyncio.run(choose())


@pytest.mark.parametrize("role", ["sliding", "fast"])
def test_captions_of_a_clip_end_with_it(clips: tuple[Path, Path], fake_engine: FakeEngine, role: str) -> None:
    async def caption() -> None:
        served = ServedModel(fake_engine.base_url, "fake", spec={"retries": 0})
        page = Page(None, served, None, Uploads(Bounds()), clips[0].parent)
        with gr.Blocks():
            tab = CaptionTab(page, gr.State())
        session = Session()
        session.about(clips[0], None)
        run = tab._slide if role == "sliding" else tab._at_once
        coming = run(session, 2.0, 30, "sharecaptioner")
        for _ in range(3 if role == "sliding" else 1):
            await anext(coming)
        session.about(clips[1], None)
        rest = [one async for one in coming]
        assert rest == [[gr.skip()] * len(rest[0])]
        assert session.captioned.captions == []

    asyncio.run(caption())


def _panel(page: Page) -> ClipPanel:
    with gr.Blocks():
        panel = ClipPanel(page, [], gr.State())
        panel.connect(gr.Slider(1, 36), [], lambda session: [], [])
    return panel


async def _all(coming: Any) -> list[Any]:
    return [one async for one in coming]
