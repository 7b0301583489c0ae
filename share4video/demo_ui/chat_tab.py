"""The tab on which to ask about a clip."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from share4video.chat import GRID_FRAMES
from share4video.demo_ui import markup
from share4video.demo_ui.page import Page
from share4video.demo_ui.session import Session
from share4video.demo_ui.settings import GRID_FRAMES_BOUNDS, TEMPERATURE_BOUNDS, TOKENS_BOUNDS
from share4video.demo_ui.talk import MAX_QUESTION, Asked
from share4video.errors import UserError

_ASK_FIRST = "Upload a clip or take an example, then ask what happens in it."
_SUGGESTIONS = (
    "What happens in the video?",
    "Describe the video in detail.",
    "Which objects are there?",
)


class ChatTab:
    """Question, answer, regenerate, stop, clear; and the picture the model is shown."""

    def __init__(self, page: Page, session: gr.State) -> None:
        self._page, self._session = page, session
        self.chatbot = gr.Chatbot(
            show_label=False,
            height=420,
            placeholder=_ASK_FIRST,
            render_markdown=False,  # what a model says is text: no links, no pictures from elsewhere
            feedback_options=None,
            buttons=["copy"],
            elem_id="s4v-chat",
            group_consecutive_messages=False,
        )
        self.notice = gr.HTML(elem_id="s4v-chat-notice", elem_classes="s4v-line")
        with gr.Row(elem_classes="s4v-pills"):
            self.suggestions = [gr.Button(text, size="sm", min_width=80) for text in _SUGGESTIONS]
        self.question = gr.Textbox(
            placeholder="Ask about the clip",
            show_label=False,
            submit_btn=True,
            max_length=MAX_QUESTION,
            lines=1,
            max_lines=6,
            elem_id="s4v-question",
        )
        with gr.Row(elem_classes="s4v-buttons"):
            self.again = gr.Button("Regenerate", size="sm", min_width=80, elem_id="s4v-regenerate")
            self.stop = gr.Button("Stop", size="sm", min_width=80, elem_id="s4v-stop")
            self.clear = gr.Button("Clear", size="sm", min_width=80, elem_id="s4v-clear")
        with gr.Accordion("Settings", open=False):
            with gr.Row():
                self.frames = gr.Slider(
                    *GRID_FRAMES_BOUNDS,
                    value=GRID_FRAMES,
                    step=1,
                    label="Frames on the grid",
                    info="The released model was trained with 16.",
                )
                self.temperature = gr.Slider(
                    *TEMPERATURE_BOUNDS,
                    value=0.0,
                    step=0.05,
                    label="Temperature",
                    info="0 is always the same.",
                )
                self.max_tokens = gr.Slider(
                    *TOKENS_BOUNDS, value=512, step=16, label="Longest answer", info="In tokens."
                )
            self.system = gr.Textbox(
                label="System prompt",
                placeholder="The model's own",
                max_length=MAX_QUESTION,
                lines=1,
                max_lines=4,
            )
        self._connect()

    @property
    def shown(self) -> list[Any]:
        """The outputs that a new clip changes, in the order of `begin`."""
        return [self.chatbot, self.notice]

    def begin(self, session: Session) -> list[Any]:
        """Return their values for the visitor's clip."""
        picture = session.talk.picture
        refusal = picture.refusal if picture is not None else None
        notice = "" if refusal is None else markup.complaint(refusal)
        return [_history(session), notice]

    def _connect(self) -> None:
        settings = [self.max_tokens, self.temperature, self.system]
        outputs = [self.chatbot, self.question, self.notice, self._session]
        private: dict[str, Any] = {"api_visibility": "private"}
        working = {**private, "concurrency_id": "chat", "concurrency_limit": self._page.bounds.at_once}
        asked: list[Any] = [
            self.question.submit(self._ask, [self.question, self._session, *settings], outputs, **working)
        ]
        for button in self.suggestions:
            asked.append(button.click(self._ask, [button, self._session, *settings], outputs, **working))
        asked.append(self.again.click(self._again, [self._session, *settings], outputs, **working))
        self.running = asked
        self.chatbot.clear(self._cleared, [self._session], outputs, cancels=asked, **private)
        self.stop.click(self._stopped, [self._session], outputs, cancels=asked, **private)
        self.clear.click(self._cleared, [self._session], outputs, cancels=asked, **private)

    async def _ask(
        self,
        question: str | None,
        session: Session,
        max_tokens: float,
        temperature: float,
        system: str | None,
    ) -> AsyncGenerator[list[Any], None]:
        question = question or ""
        talk, asked = session.talk, len(session.talk.turns)
        yield [[*_history(session), *_pending(question)], "", "", session]
        try:
            endpoint = await self._page.chat_model().endpoint()
            answers = talk.ask(question, endpoint, self._asked(max_tokens, temperature, system))
            async with aclosing(answers):
                async for _ in answers:
                    if session.talk is not talk:
                        break
                    yield [_history(session), gr.skip(), gr.skip(), session]
        except UserError as error:
            if session.talk is talk:
                unanswered = gr.skip() if len(talk.turns) > asked else question
                yield [_history(session), unanswered, markup.complaint(error), session]
        if session.talk is not talk:
            yield _nothing(session)

    async def _again(
        self, session: Session, max_tokens: float, temperature: float, system: str | None
    ) -> AsyncGenerator[list[Any], None]:
        talk = session.talk
        try:
            endpoint = await self._page.chat_model().endpoint()
            answers = talk.again(endpoint, self._asked(max_tokens, temperature, system))
            if not talk.busy:
                yield [_history(session, answers=False), gr.skip(), "", session]
            async with aclosing(answers):
                async for _ in answers:
                    if session.talk is not talk:
                        break
                    yield [_history(session), gr.skip(), gr.skip(), session]
        except UserError as error:
            if session.talk is talk:
                yield [_history(session), gr.skip(), markup.complaint(error), session]
        if session.talk is not talk:
            yield _nothing(session)

    def _asked(self, max_tokens: float, temperature: float, system: str | None) -> Asked:
        least, most = TOKENS_BOUNDS
        coldest, hottest = TEMPERATURE_BOUNDS
        return Asked(
            max_tokens=min(max(int(max_tokens), least), most),
            temperature=min(max(float(temperature), coldest), hottest),
            system=(system or "")[:MAX_QUESTION],
            patience_s=self._page.patience_s,
        )

    def _stopped(self, session: Session) -> list[Any]:
        session.talk.stop()
        return [_history(session), gr.skip(), "", session]

    def _cleared(self, session: Session) -> list[Any]:
        session.talk.about(session.talk.picture)
        return [_history(session), "", "", session]


def _history(session: Session, *, answers: bool = True) -> list[dict[str, str]]:
    """Return the conversation as the page shows it.

    Args:
        answers: False leaves out the last one, which is being made again.
    """
    told: list[dict[str, str]] = []
    for turn in session.talk.turns:
        told.append({"role": "user", "content": turn.question})
        if turn.answer:
            told.append({"role": "assistant", "content": turn.answer})
    return told if answers or not told else told[:-1]


def _nothing(session: Session) -> list[Any]:
    """Change nothing: there is another clip. Gradio shows a generator's last values again when it ends."""
    return [gr.skip(), gr.skip(), gr.skip(), session]


def _pending(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question.strip()}] if question.strip() else []
