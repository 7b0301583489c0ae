"""A caption of any span of a clip, from its stored captions alone: no frame is looked at (paper section 3.3).

What the differential captions of the span say is summed up, in the light of what led up to it: the captions
from the last full one before the span. Of a span too long for one prompt the stored summaries of parts stand
for their captions, and what still does not fit is summed up in parts as a whole clip is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from share4video.captioning.checks import EMPTY, CheckContext
from share4video.captioning.client import ChatClient, ChatRequest, Outcome
from share4video.captioning.clip import answer_or_error
from share4video.captioning.conversations import SUMMARIZER, held_against, varied
from share4video.captioning.differential import ATTEMPTS, Caption, Failure
from share4video.captioning.notes import LINE_TOKENS, PROMPT_TOKENS, Notes, Part, estimated_tokens
from share4video.captioning.role_inputs import Part as PartInput
from share4video.captioning.role_inputs import RoleInput, Span, TimedCaption
from share4video.captioning.roles import Wording, leaks, messages
from share4video.captioning.scheduler import Call
from share4video.config import ChecksConfig

Row = Mapping[str, Any]
_FULL = ("first", "anchor")


@dataclass(frozen=True)
class SpanCaptions:
    """Rows of table ``differentials`` that tell of a span.

    Attributes:
        context: what led up to it, from the last full caption before it.
        inside: what happens in it; at least one, in order of time.
    """

    context: tuple[Row, ...]
    inside: tuple[Row, ...]

    @classmethod
    def of(cls, differentials: Sequence[Row], start_s: float, end_s: float) -> SpanCaptions:
        """Choose among a clip's captions, at least one.

        A difference is inside where part of it is. Where nothing was told in the span, what was told last
        before it still holds.
        """
        rows = sorted(differentials, key=lambda row: row["index"])
        inside = [number for number, row in enumerate(rows) if _is_inside(row, start_s, end_s)]
        if not inside:
            before = [number for number, row in enumerate(rows) if row["end_s"] <= start_s]
            inside = [before[-1] if before else 0]
        first = inside[0]
        full = [number for number in range(first) if rows[number]["kind"] in _FULL]
        context = rows[full[-1] : first] if full else []
        return cls(tuple(context), tuple(rows[first : inside[-1] + 1]))


class SpanConversation:
    """The caption of one span, asked for once more where the first answer fails its checks.

    Args:
        name: seeds what is sampled.
        parts: rows of table ``captions`` of role ``part_summary``, of the same clip.
        budget_tokens: of one prompt, as `notes.estimated_tokens` counts; None is no bound.
        checks: what the answers are held against.

    Attributes:
        result: None until it is done.
    """

    def __init__(
        self,
        name: str,
        span_s: tuple[float, float],
        captions: SpanCaptions,
        parts: Sequence[Row],
        *,
        wording: Wording,
        max_tokens: int,
        budget_tokens: int | None,
        checks: ChecksConfig,
    ) -> None:
        self.result: Caption | Failure | None = None
        self._name, self._span_s = name, span_s
        self._wording: Wording = wording
        self._max_tokens, self._attempt = max_tokens, 0
        self._checks, self._captions = checks, captions
        share = budget_tokens
        if budget_tokens is not None and captions.context:
            share = (budget_tokens + PROMPT_TOKENS) // 2
        self._folds = {
            "context": _Fold(captions.context, parts, share),
            "inside": _Fold(captions.inside, parts, share),
        }

    @property
    def calls_left(self) -> int:
        return 0 if self.result is not None else 1 + (self._due() is not None)

    def next(self) -> Call | None:
        if self.result is not None:
            return None
        due = self._due()
        if due is None:
            key = f"span-{self._attempt}"
            given: RoleInput = Span(*self._span_s, *self._notes())
        else:
            side, part = due
            key = f"{side}-{part.level}-{part.number}-{self._attempt}"
            given = PartInput(part.captions)
        return Call(key, SUMMARIZER, partial(self._request, given, key))

    def take(self, call: Call, outcome: Outcome) -> None:
        due = self._due()
        caption = held_against(self._context_of(due[1] if due else None), outcome, self._attempt)
        if isinstance(caption, Caption) and caption.failed and self._attempt + 1 < ATTEMPTS:
            self._attempt += 1
            return
        if isinstance(caption, Caption) and EMPTY in caption.failed:
            caption = Failure("the engine's answer was empty")
        self._attempt = 0
        if isinstance(caption, Failure) or due is None:
            self.result = caption
        else:
            side, part = due
            self._folds[side].notes.take(part, caption.text)

    def _due(self) -> tuple[Literal["context", "inside"], Part] | None:
        if (part := self._folds["context"].due()) is not None:
            return "context", part
        if (part := self._folds["inside"].due()) is not None:
            return "inside", part
        return None

    def _notes(self) -> tuple[tuple[TimedCaption, ...], tuple[TimedCaption, ...]]:
        return self._folds["context"].notes.whole(), self._folds["inside"].notes.whole()

    def _context_of(self, part: Part | None) -> CheckContext:
        """Return what the checks need to know of the answer for a part, or for the whole span.

        What is told of a span may name times of all its captions, which may begin before it or end after it.
        """
        inside = self._captions.inside
        if part is not None:
            span_s, notes = (part.start_s, part.end_s), part.captions
        else:
            context, told = self._notes()
            start_s, end_s = self._span_s
            span_s = (min(start_s, inside[0]["start_s"]), max(end_s, inside[-1]["end_s"]))
            notes = (*told, *context)
        numbers = frozenset(range(inside[-1]["index"] + 2))
        said = tuple(note.caption for note in notes)
        return CheckContext(self._checks, leaks(self._wording), span_s, numbers, notes=said)

    def _request(self, given: RoleInput, key: str) -> ChatRequest:
        request = ChatRequest(messages(self._wording, given), self._max_tokens)
        return varied(request, self._attempt, f"{self._name}/{key}")


async def caption_span(client: ChatClient, conversation: SpanConversation) -> Caption | Failure:
    """Carry the conversation through with one engine."""
    while (call := conversation.next()) is not None:
        request = await asyncio.to_thread(call.build)
        conversation.take(call, await answer_or_error(client, request))
    assert conversation.result is not None
    return conversation.result


class _Fold:
    """Rows summed up part by part until they fit into their share of the prompt."""

    def __init__(self, rows: Sequence[Row], parts: Sequence[Row], budget_tokens: int | None) -> None:
        self.notes = Notes(budget_tokens)
        self._waiting = deque(rows)
        tokens = PROMPT_TOKENS + sum(LINE_TOKENS + estimated_tokens(row["caption"]) for row in rows)
        if budget_tokens is not None and tokens > budget_tokens:
            self._waiting = deque(_with_parts(rows, parts))

    def due(self) -> Part | None:
        while self._waiting:
            if (part := self.notes.due()) is not None:
                return part
            row = self._waiting.popleft()
            self.notes.add(_note(row), start_s=row["start_s"], anchor=row.get("kind") == "anchor")
        return self.notes.due(ended=True)


def _with_parts(rows: Sequence[Row], parts: Sequence[Row]) -> list[Row]:
    """Put stored summaries in the place of the captions they stand for, those of the longest parts first."""
    left = list(rows)
    chosen: list[Row] = []
    for part in sorted(parts, key=lambda part: part["start_s"] - part["end_s"]):
        if part["start_s"] < rows[0]["start_s"] or part["end_s"] > rows[-1]["end_s"]:
            continue
        others = [row for row in left if not _is_within(row, part)]
        if len(others) < len(left):
            left, chosen = others, [*chosen, part]
    return sorted([*left, *chosen], key=lambda row: (row["end_s"], row["start_s"]))


def _note(row: Row) -> TimedCaption:
    covers_more = row.get("kind") not in ("first", "difference", "anchor")
    number = row["index"] + 1 if "index" in row else 0
    return TimedCaption(number, row["end_s"], row["caption"], row["start_s"] if covers_more else None)


def _is_inside(row: Row, start_s: float, end_s: float) -> bool:
    if row["start_s"] == row["end_s"]:
        return bool(start_s <= row["end_s"] <= end_s)
    return bool(row["end_s"] > start_s and row["start_s"] < end_s)


def _is_within(row: Row, part: Row) -> bool:
    return bool(part["start_s"] <= row["start_s"] and row["end_s"] <= part["end_s"])
