"""Percentile bootstrap intervals, seeded, so that equal inputs give equal numbers.

An interval says how far a mean would move if other items of the same kind had been drawn. Differences between
two models are *paired*: both answered the same items, so an item's difficulty cancels out. Items that share
something (questions about one clip) are right or wrong together: they form a *cluster*, which is drawn whole.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

_CHUNK_BYTES = 32 << 20  # drawn indices held at once

Floats = NDArray[np.float64]


class Interval(BaseModel):
    """An estimate and the bounds of its percentile bootstrap interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(
    values: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the mean of ``values`` (n,) and its interval over resampled clusters.

    Args:
        clusters: (n,) the name of each item's cluster; without it every item is a cluster of its own.

    Raises:
        ValueError: there is no value, the lengths differ, or the settings are out of range.
    """
    column = np.asarray(values, dtype=np.float64).reshape(-1)
    names = np.arange(len(column)) if clusters is None else np.asarray(clusters).reshape(-1)
    if len(names) != len(column):
        raise ValueError(f"every value needs its cluster, got {len(column)} values and {len(names)} clusters")
    _, index = np.unique(names, return_inverse=True)
    rows = np.stack([np.bincount(index, column), np.bincount(index)], axis=1)
    return sum_interval(
        rows, lambda sums: sums[:, 0] / sums[:, 1], samples=samples, confidence=confidence, seed=seed
    )


def paired_difference(
    candidate: ArrayLike,
    reference: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the mean of ``candidate - reference`` and its interval; position i is the same item in both.

    Args:
        candidate: (n,) scores, or 0 and 1 for wrong and right.
        reference: (n,) scores of the other model on the same items.
        clusters: (n,) the name of each item's cluster, as `mean_interval` takes them.

    Raises:
        ValueError: the lengths differ, or there is no item.
    """
    left = np.asarray(candidate, dtype=np.float64)
    right = np.asarray(reference, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"paired scores must be of one shape, got {left.shape} and {right.shape}")
    return mean_interval(left - right, clusters=clusters, samples=samples, confidence=confidence, seed=seed)


def sum_interval(
    rows: ArrayLike,
    statistic: Callable[[Floats], Floats],
    *,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the interval of a statistic that depends on column sums, such as micro-F1 over clips.

    Args:
        rows: (n, k), one row per item or cluster that is drawn, such as a clip.
        statistic: maps sums (m, k) to values (m,); it is called on the resampled sums and on the true one.
        samples: bootstrap samples drawn.
        confidence: mass between the bounds, for instance 0.95.

    Raises:
        ValueError: there is no row, or the settings are out of range.
    """
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2 or len(table) == 0:
        raise ValueError(f"a bootstrap needs rows of shape (n > 0, k), got {table.shape}")
    if samples < 1 or not 0 < confidence < 1:
        raise ValueError(f"need samples >= 1 and 0 < confidence < 1, got {samples} and {confidence}")
    drawn = statistic(_resampled_sums(table, samples, seed))
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    estimate = statistic(table.sum(axis=0, keepdims=True))[0]
    return Interval(estimate=float(estimate), low=float(low), high=float(high))


def _resampled_sums(table: Floats, samples: int, seed: int) -> Floats:
    """Return (samples, k): the column sums of ``samples`` draws of n rows with replacement."""
    generator = np.random.default_rng(seed)
    size = len(table)
    chunk = max(1, _CHUNK_BYTES // (8 * size))
    sums = []
    for start in range(0, samples, chunk):
        drawn = generator.integers(size, size=(min(chunk, samples - start), size))
        # Column by column: gathering whole rows would hold k times the memory.
        sums.append(np.stack([column[drawn].sum(axis=1) for column in table.T], axis=1))
    return np.concatenate(sums)
