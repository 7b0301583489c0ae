"""MVBench's reference protocol, as the ShareGPT4Video release runs it.

16 uniform frames of the asked span on one 4x4 grid, the benchmark's own system text, the reply pre-filled
with ``Best option:(``, greedy decoding, and an option counted as named where the first word of the reply
matches it. Every answer is joined to its question by id.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from share4video.captioning.client import (
    CallError,
    ChatClient,
    Completion,
    Endpoint,
    image_part,
    text_part,
)
from share4video.captioning.engine import engine_silent
from share4video.chat import grid_question
from share4video.config import EvaluateConfig
from share4video.errors import UserError
from share4video.evaluation.grids import Inspect, Span, grid
from share4video.evaluation.questions import LETTERS, Question
from share4video.evaluation.results import Answer, Failure, FailureReason
from share4video.media.limits import MediaError

SYSTEM = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement"
    " of objects, and the action and pose of persons. Based on your observations, select the best option that"
    " accurately addresses the question.\n"
)
PREFILL = "Best option:("
ONLY_BEST = "Only give the best option."  # the last line of a question
BRACKET = "("  # the end of the pre-fill, put back in front of the reply before it is read
JPEG_QUALITY = 95

log = logging.getLogger(__name__)


def question_block(question: Question) -> str:
    """Return the question and its options as the benchmark words them."""
    options = "\n".join(f"({LETTERS[i]}) {text}" for i, text in enumerate(question.candidates))
    return f"Question: {question.question}\nOptions:\n{options}\n{ONLY_BEST}"


def right_reply(question: Question) -> str:
    """Return the reply, with its pre-fill, that a model is taught to give."""
    return f"{PREFILL}{question.answer_letter}) {question.candidates[question.answer_index]}"


def messages(question: Question, image: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the conversation up to the reply; without an image part it is the text-only control."""
    text = text_part(grid_question(question_block(question)))
    content = [text] if image is None else [image, text]
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def names_option(reply: str, letter: str) -> bool:
    """Whether ``reply`` names option ``letter``: the reference's rule, with its guard.

    Of the reply's first word in lower case: it must hold a letter from a to g, and either be part of ``(x)``,
    its full stops aside, or hold ``(x)``.
    """
    words = reply.lower().split()
    word, option = (words[0] if words else ""), f"({letter.lower()})"
    if not any(known.lower() in word for known in LETTERS):
        return False
    return word.strip(".") in option or option in word


def parse_answer(reply: str, candidates: int) -> str | None:
    """Return the letter of the one option that ``reply`` names, or None.

    A reply that names several options names none; the reference, which only asks whether the right one is
    among them, counts it right.
    """
    named = [letter for letter in LETTERS[:candidates] if names_option(reply, letter)]
    return named[0] if len(named) == 1 else None


@dataclass
class Session:
    """Asks questions of one endpoint and keeps count of those that got no answer.

    Attributes:
        groups: the group of each task; tasks it does not name have none.
        allowed_failures: how many questions may stay without an answer, over the session.
        inspect: called with a span's frames before they are sent; may refuse them with a UserError.
        failed: how many stay without one so far.
    """

    endpoint: Endpoint
    config: EvaluateConfig
    groups: Mapping[str, str]
    allowed_failures: int
    inspect: Inspect | None = None
    failed: int = 0
    answered: int = field(default=0, init=False)

    def ask_all(
        self,
        questions: Iterable[Question],
        spans: Mapping[str, Span] | None,
        progress: Callable[[], None] | None = None,
    ) -> tuple[list[Answer], list[Failure]]:
        """Ask every question once; those about one span share one decoded grid.

        Args:
            spans: where each question's video is, by question id; None asks without images.
            progress: called after every question.

        Returns:
            Answers and failures, each in order of question id.

        Raises:
            UserError: more questions than allowed got no answer, or the endpoint answers none.
        """
        by_span: dict[Span | None, list[Question]] = {}
        for question in questions:
            by_span.setdefault(spans[question.id] if spans is not None else None, []).append(question)
        outcomes = asyncio.run(self._ask_spans(by_span, progress))
        outcomes.sort(key=lambda outcome: outcome.question_id)
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        return answers, [outcome for outcome in outcomes if isinstance(outcome, Failure)]

    async def _ask_spans(
        self, by_span: Mapping[Span | None, Sequence[Question]], progress: Callable[[], None] | None
    ) -> list[Answer | Failure]:
        outcomes: list[Answer | Failure] = []
        waiting = iter(by_span.items())

        def keep(outcome: Answer | Failure) -> None:
            outcomes.append(outcome)
            if progress is not None:
                progress()

        async def ask_one(client: ChatClient, question: Question, image: dict[str, Any] | None) -> None:
            keep(await self._ask_one(client, question, image))

        async def work(client: ChatClient) -> None:
            for span, asked in waiting:
                image, failure = await self._image(span)
                if failure is not None:
                    for question in asked:
                        keep(self._failure(question, "unreadable_video", failure))
                    continue
                async with asyncio.TaskGroup() as group:
                    for question in asked:
                        group.create_task(ask_one(client, question, image))

        async with ChatClient(self.endpoint) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.endpoint.spec.max_in_flight, len(by_span))):
                        group.create_task(work(client))
            except BaseExceptionGroup as errors:
                raise _cause(errors) from errors
        return outcomes

    async def _image(self, span: Span | None) -> tuple[dict[str, Any] | None, str | None]:
        """Return the span's image part, or the sentence that says why there is none."""
        if span is None:
            return None, None
        try:
            return await asyncio.to_thread(self._encode, span), None
        except MediaError as error:
            return None, f"{span.path.name}: {error.sentence}"

    def _encode(self, span: Span) -> dict[str, Any]:
        encoded = io.BytesIO()
        grid(span, self.config.frames, self.inspect).save(encoded, "JPEG", quality=JPEG_QUALITY)
        return image_part(encoded.getvalue())

    async def _ask_one(
        self, client: ChatClient, question: Question, image: dict[str, Any] | None
    ) -> Answer | Failure:
        try:
            completion = await client.chat(
                messages(question, image), max_tokens=self.config.max_tokens, prefill=PREFILL
            )
        except CallError as error:
            if not self.answered and error.reason != "refused":
                raise engine_silent(self.endpoint, error) from error
            return self._failure(question, "engine_error", f"{error.reason}: {error}")
        return self._answer(question, completion)

    def _answer(self, question: Question, completion: Completion) -> Answer:
        self.answered += 1
        reply = BRACKET + completion.text
        letter = parse_answer(reply, len(question.candidates))
        return Answer(
            question_id=question.id,
            task=question.task,
            video=question.video,
            group=self.groups.get(question.task),
            options=len(question.candidates),
            text=reply,
            letter=letter,
            answer=question.answer_letter,
            right=letter == question.answer_letter,
        )

    def _failure(self, question: Question, reason: FailureReason, sentence: str) -> Failure:
        """Count a failure. ``sentence`` may hold an address, so it is said and not published."""
        self.failed += 1
        log.warning("question %s: %s", question.id, sentence)
        if self.failed > self.allowed_failures:
            raise UserError(
                f"{self.failed} questions got no answer where {self.allowed_failures} may:"
                f" {sentence.rstrip('.')}",
                where=f"question {question.id}",
                fix="mend the cause and run again, or raise evaluate.max_failed_share",
            )
        return Failure(question_id=question.id, task=question.task, reason=reason)


def _cause(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the UserError among what ended the workers, or all of it where there is none."""
    mistakes = errors.subgroup(UserError)
    first: BaseException = errors if mistakes is None else mistakes
    while mistakes is not None and isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
