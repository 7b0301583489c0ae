"""De-duplication by greedy leaders (ShareGPT4Video, section 3.1), replayed from stored pairs.

Clips are considered in a fixed order and admitted unless one admitted before is near. The paper admits in
the order of arrival and compares brief captions only. Here the order is by quality, so that the best copy
survives: more pixels first, then longer, then the preferred source, then the smaller id. Clips that are
published come before all others and stay. And there are three modes:

* ``text`` (the paper's): near when the captions' embeddings are. A brief caption names things, seldom what
  becomes of them, so clips that differ only in motion or in the order of events are dropped.
* ``visual``: near when the clips look alike at every one of a few moments spread over their durations. Blind
  to what the frame encoder is blind to, such as the exact outline of a shape.
* ``both``: near when both hold. The careful one, and the default.

A clip whose only near neighbour was itself dropped stays: no chain of small steps takes a clip out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from share4video.curation.candidates import Indices
from share4video.curation.encoders import Vectors
from share4video.curation.neighbours import NearPairs
from share4video.errors import UserError


@dataclass(frozen=True)
class Thresholds:
    """From which similarity on two clips are near; None: that similarity is not asked."""

    text: float | None
    visual: float | None


@dataclass(frozen=True)
class Admission:
    """What became of one clip.

    Attributes:
        kept: whether it was admitted.
        nearest: number of the admitted clip nearest to it when its turn came; None where no admitted clip is
            above the floor.
        similarity: to ``nearest``. With two thresholds, the similarity that is further below its threshold,
            or less above it: the one that decides.
        threshold: what ``similarity`` is held against; a clip is dropped where it is at least this.
    """

    kept: bool
    nearest: int | None
    similarity: float | None
    threshold: float


def survivor_order(
    pixels: Sequence[int], durations_s: Sequence[float], source_ranks: Sequence[int], ids: Sequence[str]
) -> list[int]:
    """Return the clips' numbers, best first: more pixels, longer, the lower rank, then the smaller id."""
    return sorted(
        range(len(ids)),
        key=lambda clip: (-pixels[clip], -durations_s[clip], source_ranks[clip], ids[clip]),
    )


def admit(
    order: Sequence[int], pairs: NearPairs, thresholds: Thresholds, *, admitted: int = 0
) -> list[Admission]:
    """Admit clips one by one, from stored pairs alone; the time it takes is linear in the pairs.

    Args:
        order: the clips' numbers in the order they are considered.
        pairs: their near pairs.
        admitted: how many of the first in ``order`` are published already, and stay.

    Returns:
        One admission per clip, by number.

    Raises:
        UserError: a threshold is below the floor of the pairs: pairs that matter were not stored.
        ValueError: the thresholds ask for other similarities than the pairs were found by.
    """
    asked = _asked(pairs, thresholds)
    slack = np.minimum.reduce([values - bound for values, bound in asked])  # near where none is negative
    earlier, later = _by_rank(order, pairs)
    by_later = np.argsort(later, kind="stable")
    bounds = np.searchsorted(later[by_later], np.arange(len(order) + 1))

    kept = np.zeros(len(order), bool)  # by rank
    admissions: dict[int, Admission] = {}
    for rank, clip in enumerate(order):
        numbers = by_later[bounds[rank] : bounds[rank + 1]]
        numbers = numbers[kept[earlier[numbers]]]
        if not len(numbers):
            kept[rank] = True
            admissions[clip] = Admission(True, None, None, float(asked[0][1]))
            continue
        # The nearest; among equally near ones the one admitted first.
        pair = numbers[np.lexsort((earlier[numbers], -slack[numbers]))[0]]
        kept[rank] = rank < admitted or slack[pair] < 0
        similarity, bound = min(((values[pair], bound) for values, bound in asked), key=lambda p: p[0] - p[1])
        nearest = int(order[earlier[pair]])
        admissions[clip] = Admission(bool(kept[rank]), nearest, float(similarity), float(bound))
    return [admissions[clip] for clip in range(len(order))]


def kept_counts(
    order: Sequence[int], pairs: NearPairs, sweep: Sequence[Thresholds], *, admitted: int = 0
) -> list[int]:
    """Return how many clips `admit` would keep at each of some thresholds, much faster than it.

    The pairs are sorted once, and clips with nobody near are not looked at.

    Raises:
        UserError, ValueError: as `admit` does.
    """
    earlier, later = _by_rank(order, pairs)
    by_later = np.argsort(later, kind="stable")
    by_later = by_later[later[by_later] >= admitted]
    counts = []
    for thresholds in sweep:
        near = np.logical_and.reduce([values >= bound for values, bound in _asked(pairs, thresholds)])
        met = by_later[near[by_later]]
        ranks, starts = np.unique(later[met], return_index=True)
        kept = np.ones(len(order), bool)
        for rank, others in zip(ranks.tolist(), np.split(earlier[met], starts[1:]), strict=False):
            kept[rank] = not kept[others].any()
        counts.append(int(kept.sum()))
    return counts


def _by_rank(order: Sequence[int], pairs: NearPairs) -> tuple[Indices, Indices]:
    """Return each pair as two places in ``order``, the earlier one first."""
    rank = np.empty(len(order), np.int64)
    rank[np.asarray(order, np.int64)] = np.arange(len(order))
    one, two = rank[pairs.clip], rank[pairs.other]
    return np.minimum(one, two), np.maximum(one, two)


def _asked(pairs: NearPairs, thresholds: Thresholds) -> list[tuple[Vectors, np.float32]]:
    """Return each similarity that decides, with what it is held against."""
    asked = []
    for name, values, threshold in (
        ("text", pairs.text, thresholds.text),
        ("visual", pairs.looks, thresholds.visual),
    ):
        if (values is None) != (threshold is None):
            raise ValueError(f"pairs and thresholds disagree on whether {name} similarity decides")
        if values is None or threshold is None:
            continue
        if threshold < pairs.floor:
            raise UserError(
                f"the {name} threshold {threshold:g} is below the floor {pairs.floor:g} of the stored pairs",
                where=f"dedup.{name}_threshold",
                fix="raise it, or lower dedup.floor and run the dedup stage again",
            )
        asked.append((values, np.float32(threshold)))
    return asked
