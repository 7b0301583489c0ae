"""A conversation about one picture: the grid of a clip's frames, or an image."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from share4video.captioning.client import Endpoint, image_part
from share4video.chat import PRE_QUERY, user_turn
from share4video.demo_ui.pictures import Picture
from share4video.demo_ui.served import asking
from share4video.errors import UserError

MAX_ANSWER = 64_000  # characters: a server that never ends must not fill the page
MAX_QUESTION = 8_000
MAX_TURNS = 100
_PICTURE_MARK = "<image>"  # in a text it would ask for one more picture


@dataclass(eq=False)  # the same question asked twice is two turns
class Turn:
    """A question and what has come of its answer so far."""

    question: str
    answer: str = ""


@dataclass(frozen=True)
class Asked:
    """How the model is asked.

    Attributes:
        system: what is said before the first turn; empty leaves it to the checkpoint's chat template.
        patience_s: how long nothing may come.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    system: str = ""
    patience_s: float = 120.0


@dataclass
class Talk:
    """What one visitor sees: a picture, and the turns about it."""

    picture: Picture | None = None
    turns: list[Turn] = field(default_factory=list)
    _open: Turn | None = field(default=None, init=False, repr=False)  # whose answer is being made

    def about(self, picture: Picture | None) -> None:
        """Begin anew, about another picture."""
        self.stop()
        self.picture, self.turns = picture, []

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return self._open is not None

    def stop(self) -> None:
        """Take no more of the answer under way; what came of it stays."""
        if self._open in self.turns and not self._open.answer.strip():
            self.turns.remove(self._open)
        self._open = None

    def messages(self, system: str = "") -> list[dict[str, Any]]:
        """Return the conversation up to the open question, as the released model was trained to be asked.

        The picture stands in the first turn, the grid's pre-query in front of that turn's question.
        """
        told: list[dict[str, Any]] = [{"role": "system", "content": system}] if system.strip() else []
        for number, turn in enumerate(self.turns):
            if number == 0 and self.picture is not None:
                preface = PRE_QUERY if self.picture.is_grid else ""
                told.append(user_turn(turn.question, image_part(self.picture.image), preface))
            else:
                told.append(user_turn(turn.question))
            if number < len(self.turns) - 1:
                told.append({"role": "assistant", "content": turn.answer})
        return told

    async def ask(self, question: str, endpoint: Endpoint, asked: Asked) -> AsyncGenerator[str, None]:
        """Ask the next question and yield the answer as it grows, from its beginning each time.

        A question that got no answer at all leaves no turn behind; what had come before a failure, or before
        nobody listened any more, stays.

        Raises:
            UserError: there is no picture or question, an answer is under way, or the model did not answer.
        """
        self._check(question)
        turn, turns = Turn(question.strip()), self.turns
        turns.append(turn)
        self._open = turn
        try:
            async with aclosing(_stream(self.messages(asked.system), endpoint, asked)) as pieces:
                async for piece in pieces:
                    if self._open is not turn:
                        return
                    turn.answer += piece
                    if len(turn.answer) > MAX_ANSWER:
                        what = f"the answer was cut: it is longer than {MAX_ANSWER} characters"
                        raise UserError(what, where=endpoint.base_url, fix="ask for fewer tokens")
                    yield turn.answer
            if not turn.answer.strip():
                fix = "ask in other words, or at another temperature"
                raise UserError("the model's answer was empty", where=endpoint.base_url, fix=fix)
        finally:
            if self._open is turn:
                self._open = None
            if not turn.answer.strip() and turn in turns:
                turns.remove(turn)

    async def again(self, endpoint: Endpoint, asked: Asked) -> AsyncGenerator[str, None]:
        """Ask the last question once more, and yield as `ask` does. The old answer stays if none comes.

        Raises:
            UserError: nothing was asked yet, an answer is under way, or the model did not answer.
        """
        self._refuse_second()
        if not self.turns:
            raise UserError("there is no answer to make again", fix="ask a question first")
        turns = self.turns
        before = turns.pop()
        kept = len(turns)
        try:
            async with aclosing(self.ask(before.question, endpoint, asked)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            if len(turns) == kept:
                turns.append(before)

    def _refuse_second(self) -> None:
        if self.busy:
            raise UserError("an answer is under way", fix="wait for its end, or stop it")

    def _check(self, question: str) -> None:
        self._refuse_second()
        if self.picture is None:
            raise UserError(
                "there is no clip to ask about", fix="upload a video or an image, or take an example"
            )
        if self.picture.refusal is not None:
            raise self.picture.refusal
        if not question.strip():
            raise UserError("the question is empty", fix="write one")
        if len(question) > MAX_QUESTION:
            raise UserError(f"the question is longer than {MAX_QUESTION} characters", fix="shorten it")
        if _PICTURE_MARK in question:
            raise UserError(
                f"a question may not hold {_PICTURE_MARK}, the mark of a picture", fix="leave it out"
            )
        if len(self.turns) >= MAX_TURNS:
            raise UserError(f"the conversation has {MAX_TURNS} turns", fix="clear it, and begin again")


async def _stream(
    messages: list[dict[str, Any]], endpoint: Endpoint, asked: Asked
) -> AsyncGenerator[str, None]:
    given: Any = messages
    async with (
        asking(endpoint.base_url, timeout_s=asked.patience_s, api_key=endpoint.api_key) as client,
        await client.chat.completions.create(
            model=endpoint.model,
            messages=given,
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
            stream=True,
        ) as chunks,
    ):
        async for chunk in chunks:
            text = chunk.choices[0].delta.content if chunk.choices else None
            if text:
                yield text
