"""What the captioning of a clip is made of: its rules, the questions to engines, and what came of them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import astuple, dataclass
from typing import Literal

from share4video.captioning.notes import Part
from share4video.captioning.role_inputs import TimedCaption

StepKind = Literal["first", "difference", "window", "anchor", "part", "summary", "fast"]
FrameKind = Literal["first", "difference", "window", "anchor"]
CAPTION_FAILED = "caption_failed"
ATTEMPTS = 2  # a caption that fails its checks is asked for once more
_DIGEST = re.compile(r"-[0-9a-f]{8}(?=-\d+$)")


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
        window: how many key frames a difference is told from; windows share one frame.
        memory: whether a difference is told knowing the caption before it.
        summary_budget_tokens: what a prompt of captions may have, as ``notes.estimated_tokens`` counts;
            above it they are summed up in parts. None is no bound.
        part_every_anchor: sum up every stretch from one anchor to the next, whether or not there is room.
    """

    anchor_every_frames: int | None = None
    anchor_every_s: float | None = None
    max_fallback_share: float = 0.2
    differential: bool = True
    summary: bool = True
    fast: bool = False
    window: int = 2
    memory: bool = True
    summary_budget_tokens: int | None = None
    part_every_anchor: bool = False

    def __post_init__(self) -> None:
        if not self.differential and (self.summary or not self.fast):
            raise ValueError("a summary needs differential captions, and something must be asked for")
        if self.window < 2:
            raise ValueError(f"a difference is between two frames or more, not {self.window}")


@dataclass(frozen=True)
class Step:
    """One question to an engine.

    Attributes:
        frame: index of the key frame, from 0; of a window's last one; -1 for the whole clip.
        attempt: 0, or 1 where the first answer failed its checks.
        before: the caption of the frame before (difference, window).
        captions: what is to be summed up (part, summary).
        since: index of a window's first key frame, which is told already.
        part: what is to be summed up, where it is not the whole.
    """

    kind: StepKind
    frame: int = -1
    attempt: int = 0
    before: str = ""
    captions: tuple[TimedCaption, ...] = ()
    since: int = -1
    part: Part | None = None

    @property
    def key(self) -> str:
        """Names the step within its clip, the same in every run that comes to ask the same.

        Where earlier answers are part of the question, their digest is part of the name: a run that goes on
        after a kill may get an answer that had failed before, and what was asked without it is then stale.
        """
        name = self.kind + "".join(f"-{frame}" for frame in (self.since, self.frame) if frame >= 0)
        if self.part is not None:
            name += f"-{self.part.level}-{self.part.number}"
        return call_key(name, self.attempt, self.before, *self.captions)


def call_key(name: str, attempt: int, *given: str | TimedCaption) -> str:
    """Name an attempt at a call by what is asked and a digest of the earlier answers it is asked about."""
    if not any(given):
        return f"{name}-{attempt}"
    texts = json.dumps([one if isinstance(one, str) else astuple(one) for one in given])
    return f"{name}-{hashlib.sha256(texts.encode()).hexdigest()[:8]}-{attempt}"


def without_digest(key: str) -> str:
    """Return a call's key as a person reads it."""
    return _DIGEST.sub("", key)


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
    """The caption of one key frame, or of those of a window after its first; ``frame`` is the last.

    ``start_s`` is the frame before for a difference and a window, else its own time.
    """

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
class PartSummary:
    """The summary of a part of a long clip; of level 2 and more it is one of other parts."""

    level: int
    start_s: float
    end_s: float
    caption: Caption


@dataclass(frozen=True)
class Rejection:
    """Why a clip has no captions.

    ``measured`` and ``bound`` are shares of flagged frames; of a clip out of time, ``bound`` is in seconds.
    """

    sentence: str
    measured: float | None = None
    bound: float | None = None
