"""Differential sliding-window captioning of one clip, as a state machine without I/O (paper section 3.3).

    first frame ─ describe in full
    frame k     ─ what changed since frame k-1, given the caption of frame k-1
    at the end  ─ a summary of all of it, from text alone

``Chain.next`` says what to ask, ``Chain.take`` is told what came of it. Which engine answers, in what words
it is asked, and what happens meanwhile to other clips is all somebody else's.

An *anchor* is a full caption of a single frame in place of a difference. One may come every so many frames
or seconds (the reference has none), and one comes where a difference failed, so that one bad answer does not
cost the clip: such a frame is flagged as *fallback*, and a clip with too many of them is rejected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from share4video.captioning.checks import EMPTY
from share4video.captioning.role_inputs import TimedCaption

StepKind = Literal["first", "difference", "anchor", "summary", "fast"]
FrameKind = Literal["first", "difference", "anchor"]
CAPTION_FAILED = "caption_failed"
ATTEMPTS = 2  # a caption that fails its checks is asked for once more


@dataclass(frozen=True)
class ChainRules:
    """How clips are captioned.

    Attributes:
        anchor_every_frames: an anchor at the latest so many key frames after the last full caption.
        anchor_every_s: the same in seconds; None for both is the reference's behaviour.
        max_fallback_share: the share of flagged frames above which a clip is rejected.
        differential: caption key frame by key frame.
        summary: and sum that up; only with ``differential``.
        fast: ask for the whole caption in one call.
    """

    anchor_every_frames: int | None = None
    anchor_every_s: float | None = None
    max_fallback_share: float = 0.2
    differential: bool = True
    summary: bool = True
    fast: bool = False

    def __post_init__(self) -> None:
        if not self.differential and (self.summary or not self.fast):
            raise ValueError("a summary needs differential captions, and something must be asked for")


@dataclass(frozen=True)
class Step:
    """One question to an engine.

    Attributes:
        frame: index of the key frame, from 0; -1 for the whole clip.
        attempt: 0, or 1 where the first answer failed its checks.
        before: the caption of the frame before (difference).
        captions: every frame's caption (summary).
    """

    kind: StepKind
    frame: int = -1
    attempt: int = 0
    before: str = ""
    captions: tuple[TimedCaption, ...] = ()

    @property
    def key(self) -> str:
        """Names the step within its clip, the same in every run."""
        return (
            f"{self.kind}-{self.frame}-{self.attempt}" if self.frame >= 0 else f"{self.kind}-{self.attempt}"
        )


@dataclass(frozen=True)
class Caption:
    """An answer, what it cost, the codes of the checks it failed, and how well it fits its frame."""

    text: str
    tokens: int
    failed: tuple[str, ...] = ()
    prompt_tokens: int = 0
    attempt: int = 0
    frame_text_score: float | None = None


@dataclass(frozen=True)
class Failure:
    """A call that failed for good."""

    sentence: str


@dataclass(frozen=True)
class Differential:
    """The caption of one key frame. ``start_s`` is the frame before for a difference, else its own time."""

    frame: int
    kind: FrameKind
    start_s: float
    end_s: float
    caption: Caption
    fallback: bool

    @property
    def text(self) -> str:
        return self.caption.text


@dataclass(frozen=True)
class Rejection:
    """Why a clip has no captions; ``measured`` and ``bound`` are shares of flagged frames."""

    sentence: str
    measured: float | None = None
    bound: float | None = None


class Chain:
    """The captioning of one clip. Ask `next`, answer with `take`, until `next` returns None.

    Args:
        timestamps_s: times of the key frames, ascending, at least one.
    """

    def __init__(self, timestamps_s: Sequence[float], rules: ChainRules) -> None:
        if not timestamps_s or any(b <= a for a, b in zip(timestamps_s, timestamps_s[1:], strict=False)):
            raise ValueError(f"key frames must be in order of time, got {list(timestamps_s)}")
        self.timestamps_s, self.rules = tuple(timestamps_s), rules
        self.differentials: list[Differential] = []
        self.summary: Caption | None = None
        self.fast: Caption | None = None
        self.rejection: Rejection | None = None
        self._last_full = 0
        self._pending = self._following_step()

    @property
    def steps_left(self) -> int:
        """How many calls are still to come if none of them fails."""
        if self._pending is None:
            return 0
        whole = [self.rules.fast and self.fast is None, self.rules.summary and self.summary is None]
        return self._frames_left + sum(whole)

    @property
    def _frames_left(self) -> int:
        return len(self.timestamps_s) - len(self.differentials) if self.rules.differential else 0

    def next(self) -> Step | None:
        """Return what to ask, None when the clip is done or rejected. Changes nothing."""
        return self._pending

    def take(self, step: Step, outcome: Caption | Failure) -> None:
        """Take the outcome of ``step``, which must be the one `next` returned."""
        if step != self._pending:
            raise ValueError(f"{step.key} is not the step that was asked for")
        if isinstance(outcome, Caption) and outcome.failed and step.attempt + 1 < ATTEMPTS:
            self._pending = Step(step.kind, step.frame, step.attempt + 1, step.before, step.captions)
        elif step.kind in ("summary", "fast"):
            self._take_whole(step, outcome)
        elif step.kind == "difference" and not _is_sound(outcome):
            self._pending = Step("anchor", step.frame)
        else:
            self._take_frame(step, outcome)

    def _take_frame(self, step: Step, outcome: Caption | Failure) -> None:
        assert step.kind in ("first", "difference", "anchor")
        if isinstance(outcome, Failure) or EMPTY in outcome.failed:
            why = outcome.sentence if isinstance(outcome, Failure) else "the engine's answer was empty"
            self._reject(Rejection(f"no caption for key frame {step.frame + 1}: {why}"))
            return
        frame, kind = step.frame, step.kind
        fallback = bool(outcome.failed) or (kind == "anchor" and not self._anchor_due(frame))
        end_s = self.timestamps_s[frame]
        start_s = self.timestamps_s[frame - 1] if kind == "difference" else end_s
        self.differentials.append(Differential(frame, kind, start_s, end_s, outcome, fallback))
        if kind != "difference":
            self._last_full = frame
        share = sum(d.fallback for d in self.differentials) / len(self.timestamps_s)
        if share > self.rules.max_fallback_share:
            self._reject(
                Rejection("too many key frames without a sound caption", share, self.rules.max_fallback_share)
            )
        else:
            self._pending = self._following_step()

    def _take_whole(self, step: Step, outcome: Caption | Failure) -> None:
        if isinstance(outcome, Failure) or EMPTY in outcome.failed:
            why = outcome.sentence if isinstance(outcome, Failure) else "the engine's answer was empty"
            self._reject(Rejection(f"no {step.kind} caption: {why}"))
            return
        if step.kind == "fast":
            self.fast = outcome
        else:
            self.summary = outcome
        self._pending = self._following_step()

    def _following_step(self) -> Step | None:
        if self._frames_left:
            return self._frame_step()
        if self.rules.fast and self.fast is None:
            return Step("fast")
        if self.rules.summary and self.summary is None:
            captions = (TimedCaption(d.frame + 1, d.end_s, d.text) for d in self.differentials)
            return Step("summary", captions=tuple(captions))
        return None

    def _frame_step(self) -> Step:
        frame = len(self.differentials)
        if frame == 0:
            return Step("first", 0)
        if self._anchor_due(frame):
            return Step("anchor", frame)
        return Step("difference", frame, before=self.differentials[-1].text)

    def _anchor_due(self, frame: int) -> bool:
        frames = self.rules.anchor_every_frames or math.inf
        seconds = self.rules.anchor_every_s or math.inf
        since_s = self.timestamps_s[frame] - self.timestamps_s[self._last_full]
        return frame - self._last_full >= frames or since_s >= seconds

    def _reject(self, rejection: Rejection) -> None:
        self.rejection, self._pending = rejection, None


def _is_sound(outcome: Caption | Failure) -> bool:
    return isinstance(outcome, Caption) and not outcome.failed
