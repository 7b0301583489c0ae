"""The tab on which to caption a clip, a span of it, or a short prompt."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from share4video.demo_ui import markup
from share4video.demo_ui.captions import MAX_PROMPT, CaptionedClip, recaption
from share4video.demo_ui.page import Page
from share4video.demo_ui.session import Session
from share4video.demo_ui.settings import INTERVAL_BOUNDS_S, KEY_FRAMES_BOUNDS
from share4video.errors import UserError

_HOW = (
    "Sliding: what changes from key frame to key frame, then a summary. "
    "Fast: all key frames in one picture, one caption."
)
_DIALECTS = [("ShareCaptioner-Video's", "sharecaptioner"), ("A general model's", "teacher")]


class CaptionTab:
    """Sliding and fast captions of the clip; a caption of a span of it; a dense caption of a prompt."""

    def __init__(self, page: Page, session: gr.State) -> None:
        self._page, self._session = page, session
        gr.HTML(markup.heading(_HOW), elem_classes="s4v-line")
        with gr.Row(elem_classes="s4v-buttons"):
            self.sliding = gr.Button(
                "Sliding captions", variant="primary", size="md", min_width=120, elem_id="s4v-sliding"
            )
            self.fast = gr.Button("Fast caption", size="md", min_width=120, elem_id="s4v-fast")
            self.stop = gr.Button("Stop", size="md", min_width=80, elem_id="s4v-caption-stop")
        with gr.Accordion("Settings", open=False), gr.Row():
            self.interval = gr.Slider(
                *INTERVAL_BOUNDS_S, value=2.0, step=0.5, label="Look at the clip every", info="Seconds."
            )
            self.most = gr.Slider(
                *KEY_FRAMES_BOUNDS, value=30, step=1, label="At most", info="Key frames; more are refused."
            )
            self.dialect = gr.Radio(_DIALECTS, value=page.dialect, label="Prompts")
        self.notice = gr.HTML(elem_id="s4v-caption-notice", elem_classes="s4v-line")
        self.whole = gr.HTML(elem_id="s4v-whole", elem_classes="s4v-line")
        self.rows = gr.HTML(elem_id="s4v-rows", elem_classes="s4v-line")
        with gr.Accordion("Caption of a span", open=True):
            gr.HTML(markup.heading("From the sliding captions alone: no frame is looked at again."))
            with gr.Row(elem_classes="s4v-span"):
                self.start = gr.Slider(0, 1, value=0, step=0.1, label="From (s)", elem_id="s4v-span-start")
                self.end = gr.Slider(0, 1, value=1, step=0.1, label="To (s)", elem_id="s4v-span-end")
                self.sum_up = gr.Button("Caption the span", size="md", elem_id="s4v-span", min_width=120)
            self.span = gr.HTML(elem_id="s4v-span-caption")
        with gr.Accordion("Dense caption of a short prompt", open=False):
            self.prompt = gr.Textbox(
                show_label=False,
                placeholder="A short generation prompt, such as: a red circle moves to the right",
                max_length=MAX_PROMPT,
                submit_btn=True,
                elem_id="s4v-prompt",
            )
            self.recaptioned = gr.HTML(elem_id="s4v-recaption")
        self._connect()

    @property
    def shown(self) -> list[Any]:
        """The outputs that a new clip changes, in the order of `begin`."""
        return [self.rows, self.whole, self.notice, self.start, self.end, self.span]

    def begin(self, session: Session) -> list[Any]:
        """Return their values for a clip without captions."""
        return ["", "", "", gr.skip(), gr.skip(), ""]

    def _connect(self) -> None:
        private: dict[str, Any] = {"api_visibility": "private"}
        working = {**private, "concurrency_id": "caption", "concurrency_limit": self._page.bounds.at_once}
        settings = [self.interval, self.most, self.dialect]
        outputs = [*self.shown, self._session]
        given = [self._session, *settings]
        running: list[Any] = [
            self.sliding.click(self._slide, given, outputs, **working),
            self.fast.click(self._at_once, given, [self.whole, self.notice, self._session], **working),
        ]
        self.stop.click(self._stopped, None, [self.notice], cancels=running, **private)
        summing_up = self.sum_up.click(
            self._sum_up,
            [self.start, self.end, self.dialect, self._session],
            [self.span, self.notice, self._session],
            **working,
        )
        self.running = [*running, summing_up]
        self.prompt.submit(self._recaption, [self.prompt, self.dialect], [self.recaptioned], **working)

    async def _slide(
        self, session: Session, interval_s: float, most: float, dialect: str
    ) -> AsyncGenerator[list[Any], None]:
        rows, same = "", [gr.skip(), gr.skip(), gr.skip()]
        clip, path = CaptionedClip(), session.path
        session.captioned = clip
        yield ["", "", markup.notice("Choosing key frames …"), gr.skip(), gr.skip(), "", session]
        try:
            how = await self._page.captioning(dialect)
            shown = await self._page.key_frames(path, *_bounded(interval_s, most))
            if session.captioned is not clip:
                yield _nothing(7)
                return
            clip.about(shown)
            frames, end_s = len(shown.frames), math.floor(shown.duration_s * 10) / 10
            yield [
                "",
                "",
                markup.notice(f"{frames} key frames. Captioning the first one …"),
                gr.update(maximum=end_s, value=0),
                gr.update(maximum=end_s, value=end_s),
                "",
                session,
            ]
            captions = clip.caption(("sliding", "summary"), how)
            async with aclosing(captions):
                async for caption in captions:
                    if session.captioned is not clip:
                        yield _nothing(7)
                        return
                    if caption.role == "summary":
                        summary = markup.whole_caption(
                            "Summary of the clip", caption.caption, checks=caption.checks
                        )
                        yield [rows, summary, "", *same, session]
                        continue
                    rows += markup.caption_row(caption, clip.frame_of(caption).image)
                    doing = f"captioning key frame {caption.number + 1} of {frames} …"
                    if caption.number == frames:
                        doing = "summing up …"
                    yield [rows, "", markup.notice(f"{shown.facts}: {doing}"), *same, session]
        except UserError as error:
            if session.captioned is not clip:
                yield _nothing(7)
                return
            yield [rows, "", markup.complaint(error), *same, session]

    async def _at_once(
        self, session: Session, interval_s: float, most: float, dialect: str
    ) -> AsyncGenerator[list[Any], None]:
        path, talk = session.path, session.talk  # another clip comes with another conversation
        yield [gr.skip(), markup.notice("Captioning all key frames at once …"), session]
        try:
            how = await self._page.captioning(dialect)
            clip = CaptionedClip(await self._page.key_frames(path, *_bounded(interval_s, most)))
            assert clip.shown is not None
            captions = clip.caption(("fast",), how)
            async with aclosing(captions):
                async for caption in captions:
                    note = f"{len(clip.shown.frames)} key frames in one picture"
                    told = markup.whole_caption(
                        "Fast caption", caption.caption, checks=caption.checks, note=note
                    )
                    yield [told, "", session] if session.talk is talk else _nothing(3)
        except UserError as error:
            yield [gr.skip(), markup.complaint(error), session] if session.talk is talk else _nothing(3)

    async def _sum_up(
        self, start_s: float, end_s: float, dialect: str, session: Session
    ) -> AsyncGenerator[list[Any], None]:
        clip = session.captioned
        yield [markup.notice("Summing up …"), "", session]
        try:
            how = await self._page.captioning(dialect)
            text, numbers = await clip.span(float(start_s), float(end_s), how)
        except UserError as error:
            yield [markup.complaint(error), "", session] if session.captioned is clip else _nothing(3)
            return
        if session.captioned is not clip:
            yield _nothing(3)
            return
        title = f"{markup.clock(start_s)} to {markup.clock(end_s)}"
        used = f"key frames {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"key frame {numbers[0]}"
        yield [markup.whole_caption(title, text, note=f"from the captions of {used}"), "", session]

    async def _recaption(self, prompt: str | None, dialect: str) -> AsyncGenerator[str, None]:
        yield markup.notice("Captioning …")
        try:
            how = await self._page.captioning(dialect)
            text = await recaption(prompt or "", how)
            yield markup.whole_caption("Dense caption", text, note=(prompt or "").strip())
        except UserError as error:
            yield markup.complaint(error)

    def _stopped(self) -> str:
        return markup.notice("Stopped. The captions that came stay.")


def _nothing(outputs: int) -> list[Any]:
    """Change nothing: there is another clip. Gradio shows a generator's last values again when it ends."""
    return [gr.skip() for _ in range(outputs)]


def _bounded(interval_s: float, most: float) -> tuple[float, int]:
    shortest, longest = INTERVAL_BOUNDS_S
    fewest, all_of_them = KEY_FRAMES_BOUNDS
    return min(max(float(interval_s), shortest), longest), min(max(int(most), fewest), all_of_them)
