"""Differential sliding-window captioning of one clip, as a state machine without I/O (paper section 3.3).

    first frame ─ describe in full
    frame k     ─ what changed since frame k-1, given the caption of frame k-1
    at the end  ─ a summary of all of it, from text alone

``Chain.next`` says what to ask, ``Chain.take`` is told what came of it. Which engine answers, in what words
it is asked, and what happens meanwhile to other clips is all somebody else's.

An *anchor* is a full caption of a single frame in place of a difference. One comes at a scene cut, where a
difference would compare two places, and every so many frames or seconds (the reference has none); and one
comes where a difference failed, so that one bad answer does not cost the clip: such a frame is flagged as
*fallback*, and a clip with too many of them is rejected.

A difference may be told from more than two frames: a *window* is given the last frame that is told already
and the next ones, and never reaches over an anchor.

Captions that do not fit into one prompt are summed up in *parts* as they come (``notes.py``).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from typing import Self

from share4video.captioning.checks import EMPTY
from share4video.captioning.notes import Notes
from share4video.captioning.role_inputs import TimedCaption
from share4video.captioning.steps import (
    ATTEMPTS,
    CAPTION_FAILED,
    Caption,
    ChainRules,
    Differential,
    Failure,
    PartSummary,
    Rejection,
    Step,
)

__all__ = [
    "ATTEMPTS",
    "CAPTION_FAILED",
    "Caption",
    "Chain",
    "ChainRules",
    "Differential",
    "Failure",
    "PartSummary",
    "Rejection",
    "Step",
]


@dataclass(frozen=True)
class _Frame:
    number: int
    timestamp_s: float
    cut: bool = False


class Chain:
    """The captioning of one clip. Ask `next`, answer with `take`, until `next` returns None.

    Args:
        timestamps_s: times of the key frames, ascending, at least one.
        cuts: for each whether a new scene begins with it; none where that is not known.

    Attributes:
        differentials: the key frames' captions since `hand_out`.
        parts: the parts' summaries since `hand_out`.
        start_s: time of the first key frame.
        end_s: time of the last key frame known.
        taken: what the last answer came to, checks and all.
    """

    def __init__(
        self, timestamps_s: Sequence[float], rules: ChainRules, *, cuts: Sequence[bool] = ()
    ) -> None:
        self._begin(rules)
        if not timestamps_s:
            raise ValueError("a clip has at least one key frame")
        for timestamp_s, cut in zip(timestamps_s, cuts or [False] * len(timestamps_s), strict=True):
            self._know(timestamp_s, cut)
        self.close()

    @classmethod
    def growing(cls, rules: ChainRules) -> Self:
        """Return the captioning of a clip whose key frames are still to come: `extend` it, then `close` it.

        It asks what one that knew them from the start would ask, as soon as that is certain. What it holds
        does not grow with the clip while `hand_out` is called.
        """
        if rules.fast:
            raise ValueError("a fast caption needs all key frames at once")
        chain = cls.__new__(cls)
        chain._begin(rules)
        return chain

    def _begin(self, rules: ChainRules) -> None:
        self.rules = rules
        self.start_s, self.end_s = math.inf, -math.inf
        self.differentials: list[Differential] = []
        self.parts: list[PartSummary] = []
        self.summary: Caption | None = None
        self.fast: Caption | None = None
        self.derived: dict[str, Caption] = {}  # by role; see `share4video.captioning.derived`
        self.rejection: Rejection | None = None
        self.taken: Caption | Failure | None = None
        self._closed = False
        self._known = self._answered = self._fallbacks = 0  # key frames
        self._ahead: deque[_Frame] = deque()  # those without a caption
        self._told_s = -math.inf  # of the last one with a caption
        self._text = ""  # that caption
        self._full = _Frame(0, 0.0)  # the last one with a full caption
        self._notes = Notes(rules.summary_budget_tokens, every_anchor=rules.part_every_anchor)
        self._pending: Step | None = None

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def shortened(self) -> int:
        """How many captions had to be cut to fit into the prompts of summaries."""
        return self._notes.shortened

    @property
    def notes(self) -> tuple[TimedCaption, ...]:
        """What the summary is made from: the captions that are not summed up in parts, and the parts."""
        return self._notes.whole()

    @property
    def oldest_frame(self) -> int:
        """Index of the first key frame that a later step may need."""
        return 0 if self.rules.fast else max(0, self._answered - 1)

    @property
    def steps_left(self) -> int:
        """How many calls are still to come if none of them fails, as far as that can be told."""
        if self._pending is None:
            return 0
        whole = [
            self.rules.fast and self.fast is None,
            self.rules.summary and self.summary is None,
            self._pending.kind == "part",
        ]
        return math.ceil(len(self._ahead) / (self.rules.window - 1)) + sum(whole)

    def extend(self, timestamp_s: float, cut: bool = False) -> None:
        """Add the next key frame of a clip that is not closed."""
        if self._closed:
            raise ValueError("the clip has no more key frames")
        self._know(timestamp_s, cut)
        self._go_on()

    def close(self) -> None:
        """Say that there are no more key frames."""
        if self._closed:
            return
        if not self._known:
            raise ValueError("a clip has at least one key frame")
        self._closed = True
        self._check_fallbacks()
        self._go_on()

    def _know(self, timestamp_s: float, cut: bool) -> None:
        if not self.end_s < timestamp_s:
            raise ValueError(f"key frames must be in order of time, got {timestamp_s} after {self.end_s}")
        self.start_s, self.end_s = min(self.start_s, timestamp_s), timestamp_s
        if self.rules.differential:
            self._ahead.append(_Frame(self._known, timestamp_s, cut))
        self._known += 1

    def next(self) -> Step | None:
        """Return what to ask, None when there is nothing to ask (yet, in a clip not closed). Changes nothing.

        A closed clip is then done or rejected.
        """
        return self._pending

    def hand_out(self) -> list[Differential | PartSummary]:
        """Return the captions since the last call, and forget them."""
        found: list[Differential | PartSummary] = [*self.differentials, *self.parts]
        self.differentials, self.parts = [], []
        return found

    def take(self, step: Step, outcome: Caption | Failure) -> None:
        """Take the outcome of ``step``, which must be the one `next` returned."""
        if step != self._pending:
            raise ValueError(f"{step.key} is not the step that was asked for")
        self._pending, self.taken = None, outcome
        if isinstance(outcome, Caption) and outcome.failed and step.attempt + 1 < ATTEMPTS:
            self._pending = replace(step, attempt=step.attempt + 1)
        elif step.kind in ("part", "summary", "fast"):
            self._take_whole(step, outcome)
        elif step.kind in ("difference", "window") and not _is_sound(outcome):
            self._pending = Step("anchor", self._answered)
        else:
            self._take_frame(step, outcome)
        self._go_on()

    def _take_frame(self, step: Step, outcome: Caption | Failure) -> None:
        kind = step.kind
        assert kind in ("first", "difference", "window", "anchor")
        if isinstance(outcome, Failure) or EMPTY in outcome.failed:
            self.rejection = Rejection(f"no caption for key frame {step.frame + 1}: {_why(outcome)}")
            return
        before_s = self._told_s
        fallback = bool(outcome.failed) or (kind == "anchor" and not self._anchor_due(self._ahead[0]))
        while self._answered <= step.frame:
            frame = self._ahead.popleft()
            self._answered += 1
        changed = kind in ("difference", "window")
        start_s, end_s = before_s if changed else frame.timestamp_s, frame.timestamp_s
        self.differentials.append(Differential(frame.number, kind, start_s, end_s, outcome, fallback))
        self._told_s, self._text = end_s, outcome.text
        if not changed:
            self._full = frame
        note = TimedCaption(frame.number + 1, end_s, outcome.text, start_s if kind == "window" else None)
        if self.rules.summary:
            self._notes.add(note, start_s=start_s, anchor=kind == "anchor")
        self._fallbacks += fallback
        self._check_fallbacks()

    def _check_fallbacks(self) -> None:
        """Reject the clip where too many frames are flagged, once their number is known."""
        share, bound = self._fallbacks / self._known, self.rules.max_fallback_share
        if self._closed and share > bound:
            self.rejection = Rejection("too many key frames without a sound caption", share, bound)

    def _take_whole(self, step: Step, outcome: Caption | Failure) -> None:
        if isinstance(outcome, Failure) or EMPTY in outcome.failed:
            self.rejection = Rejection(f"no {step.kind} caption: {_why(outcome)}")
        elif step.part is not None:
            part = step.part
            self.parts.append(PartSummary(part.level, part.start_s, part.end_s, outcome))
            self._notes.take(part, outcome.text)
        elif step.kind == "fast":
            self.fast = outcome
        else:
            self.summary = outcome

    def _go_on(self) -> None:
        if self.rejection is not None:
            self._pending = None
        elif self._pending is None:
            self._pending = self._following_step()

    def _following_step(self) -> Step | None:
        if (part := self._part_step()) is not None:
            return part
        if self._ahead:
            return self._frame_step()
        if not self._closed:
            return None
        if self.rules.fast and self.fast is None:
            return Step("fast")
        if self.rules.summary and self.summary is None:
            return self._part_step(ended=True) or Step("summary", captions=self._notes.whole())
        return None

    def _part_step(self, *, ended: bool = False) -> Step | None:
        part = self._notes.due(ended=ended)
        return None if part is None else Step("part", captions=part.captions, part=part)

    def _frame_step(self) -> Step | None:
        first, before = self._ahead[0], self._text if self.rules.memory else ""
        if first.number == 0:
            return Step("first", 0)
        if self._anchor_due(first):
            return Step("anchor", first.number)
        room = self.rules.window - 1
        told = list(takewhile(lambda frame: not self._anchor_due(frame), islice(self._ahead, room)))
        if len(told) < room and len(told) == len(self._ahead) and not self._closed:
            return None  # the next frame may belong to the window
        if len(told) == 1:
            return Step("difference", first.number, before=before)
        return Step("window", told[-1].number, before=before, since=first.number - 1)

    def _anchor_due(self, frame: _Frame) -> bool:
        frames = self.rules.anchor_every_frames or math.inf
        since_s = frame.timestamp_s - self._full.timestamp_s
        long_ago = since_s >= (self.rules.anchor_every_s or math.inf)
        return frame.cut or frame.number - self._full.number >= frames or long_ago


def _is_sound(outcome: Caption | Failure) -> bool:
    return isinstance(outcome, Caption) and not outcome.failed


def _why(outcome: Caption | Failure) -> str:
    return outcome.sentence if isinstance(outcome, Failure) else "the engine's answer was empty"
