"""How well a caption tells the facts of a clip: micro-F1 over one-to-one matched, timed facts.

A predicted fact is right where a true fact of the same object, predicate and value is at most the tolerance
away in time, and every true fact pays for one prediction only: saying a thing twice is one right and one
wrong fact. A prediction that matches only a true fact which sampling cannot show without doubt is neither
rewarded nor punished.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from share4video.evaluation.bootstrap import Floats, Interval, sum_interval

SAMPLING_INTERVAL_S = 2.0
_ROUNDING_S = 1e-6  # captions print times with two decimals; equal times must not differ by representation
_BLIND_ROUNDS = 10


class TimedFact(Protocol):
    """Anything with an object, a predicate, a value and a time in seconds."""

    @property
    def object(self) -> str: ...
    @property
    def predicate(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def time_s(self) -> float: ...


@dataclass(frozen=True)
class ClipFacts:
    """What was said about a clip, and what is true of it."""

    clip_id: str
    predicted: tuple[TimedFact, ...]
    observable: tuple[TimedFact, ...]
    unobservable: tuple[TimedFact, ...] = ()


@dataclass(frozen=True)
class Counts:
    """Right, wrong, missed and ignored facts; ``right + wrong + ignored`` is the number of predictions."""

    right: int = 0
    wrong: int = 0
    missed: int = 0
    ignored: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.right + other.right,
            self.wrong + other.wrong,
            self.missed + other.missed,
            self.ignored + other.ignored,
        )


class CaptionScore(BaseModel):
    """Micro-averaged scores over clips; the interval is over resampled clips."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    clips: int
    right: int
    wrong: int
    missed: int
    ignored: int
    precision: float
    recall: float
    f1: Interval


def count_facts(
    predicted: Iterable[TimedFact],
    observable: Iterable[TimedFact],
    unobservable: Iterable[TimedFact] = (),
    *,
    tolerance_s: float = SAMPLING_INTERVAL_S,
) -> Counts:
    """Match predictions one-to-one: as many observable facts as possible, then as many others as possible.

    The counts do not depend on the order of any argument.

    Raises:
        ValueError: the tolerance is negative.
    """
    if tolerance_s < 0:
        raise ValueError(f"the tolerance must not be negative, got {tolerance_s}")
    said, true, hidden = _times(predicted), _times(observable), _times(unobservable)
    total = Counts()
    for key in said.keys() | true.keys():
        total += _count_times(said[key], true[key], hidden[key], tolerance_s + _ROUNDING_S)
    return total


def _times(facts: Iterable[TimedFact]) -> dict[tuple[str, str, str], list[float]]:
    groups: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for fact in facts:
        groups[fact.object, fact.predicate, fact.value].append(fact.time_s)
    return groups


def _count_times(
    said: Sequence[float], true: Sequence[float], hidden: Sequence[float], tolerance_s: float
) -> Counts:
    """Count one group of equal facts by augmenting paths from each true fact.

    An augmenting path never frees a true fact that was matched before, so taking the observable ones first
    gives the most of them, and among such matchings the most of the others.
    """
    targets = [*true, *hidden]
    near = [[i for i, time_s in enumerate(said) if abs(time_s - t) <= tolerance_s] for t in targets]
    taken_by: dict[int, int] = {}

    def place(target: int, tried: set[int]) -> bool:
        for i in near[target]:
            if i not in tried:
                tried.add(i)
                if i not in taken_by or place(taken_by[i], tried):
                    taken_by[i] = target
                    return True
        return False

    placed = [place(target, set()) for target in range(len(targets))]
    right, ignored = sum(placed[: len(true)]), sum(placed[len(true) :])
    return Counts(right, len(said) - right - ignored, len(true) - right, ignored)


def score_captions(
    clips: Sequence[ClipFacts],
    *,
    tolerance_s: float = SAMPLING_INTERVAL_S,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> CaptionScore:
    """Score captions against the truth of their own clips.

    Raises:
        ValueError: there is no clip.
    """
    rows = [
        count_facts(clip.predicted, clip.observable, clip.unobservable, tolerance_s=tolerance_s)
        for clip in clips
    ]
    return _score(rows, samples=samples, confidence=confidence, seed=seed)


def blind_prior(
    clips: Sequence[ClipFacts],
    *,
    tolerance_s: float = SAMPLING_INTERVAL_S,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> CaptionScore:
    """Score captions against the truth of *other* clips: what knowing the kind of clip alone is worth.

    Every clip's truth meets the captions of up to ten other clips, so length and habit of the captions are
    those of the model that is judged.

    Raises:
        ValueError: there are fewer than two clips.
    """
    if len(clips) < 2:
        raise ValueError("a blind prior needs at least two clips")
    order = np.random.default_rng(seed).permutation(len(clips))
    shuffled = [clips[i] for i in order]
    rows = []
    for i, clip in enumerate(shuffled):
        total = Counts()
        for shift in range(1, min(_BLIND_ROUNDS, len(clips) - 1) + 1):
            other = shuffled[(i + shift) % len(shuffled)]
            total += count_facts(other.predicted, clip.observable, clip.unobservable, tolerance_s=tolerance_s)
        rows.append(total)
    return _score(rows, samples=samples, confidence=confidence, seed=seed)


def _score(rows: Sequence[Counts], *, samples: int, confidence: float, seed: int) -> CaptionScore:
    total = sum(rows, Counts())
    table = np.array([[row.right, row.wrong, row.missed] for row in rows], dtype=np.float64)
    return CaptionScore(
        clips=len(rows),
        right=total.right,
        wrong=total.wrong,
        missed=total.missed,
        ignored=total.ignored,
        precision=_share(total.right, total.right + total.wrong),
        recall=_share(total.right, total.right + total.missed),
        f1=sum_interval(table, _f1, samples=samples, confidence=confidence, seed=seed),
    )


def _share(part: int, whole: int) -> float:
    """Return ``part / whole``; of nothing, all is right."""
    return part / whole if whole else 1.0


def _f1(sums: Floats) -> Floats:
    """Map sums (m, 3) of right, wrong and missed facts to F1 (m,); nothing said of nothing is 1."""
    right, wrong, missed = sums.T
    weight = 2 * right + wrong + missed
    scores: Floats = np.where(weight > 0, 2 * right / np.maximum(weight, 1), 1.0)
    return scores
