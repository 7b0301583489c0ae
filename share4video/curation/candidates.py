"""Which pairs of vectors may be near: inner products above a floor, all of them or nearly all.

Two searches. ``every_pair`` compares everything with everything: exact, and its time grows with the square of
the rows. ``partitioned_pairs`` is for more rows than that allows: the rows are divided among centroids
(spherical k-means on a sample, SemDeDup's idea), and a row meets the members of the few lists whose centroids
are nearest to it. A pair is missed only where neither of its rows looks into the other's list;
``sampled_recall`` measures how often that happens.

Both give pairs (earlier, later) of row numbers, each once, in lexical order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from share4video.errors import UserError

Indices = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]
Pairs = tuple[Indices, Indices]

ROWS_AT_ONCE = 16384  # where many rows meet few: their products stay small
_BLOCK_ROWS, _BLOCK_COLUMNS = 1024, 8192
_PRODUCT_ROWS = 8192
_ROWS_PER_LIST = 1024  # on average: fewer cost more centroids, more cost more products
_MOST_LISTS = 16384
_SHARE_PROBED = 0.01  # of the lists, and at least so many:
_FEWEST_PROBES = 8
_TRAINING_ROWS_PER_LIST = 40
_TRAINING_ROUNDS = 4
_SEED = 0


@dataclass(frozen=True)
class PairBudget:
    """How many near pairs per row may be found, on average, before a search is given up."""

    floor: float
    rows: int
    per_row: int

    def check(self, pairs: int) -> None:
        """Raise UserError where ``pairs`` are too many: the floor is too low for these embeddings."""
        if pairs > self.per_row * self.rows:
            raise UserError(
                f"more than {self.per_row} near pairs per clip",
                where=f"similarity floor {self.floor:g}",
                fix="raise dedup.floor: with these embeddings unrelated clips lie above it",
            )


def every_pair(rows: Rows, floor: float, budget: PairBudget) -> Pairs:
    """Return every pair whose inner product is at least ``floor``; exact, in blocks.

    The products are BLAS's, and what is above the floor is picked out of each block while it is in the cache.
    """
    found: list[Indices] = []
    total = 0
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        for before in range(0, start + len(block), _BLOCK_COLUMNS):  # a row meets those before it only
            earlier, later = _above(
                rows[before : min(before + _BLOCK_COLUMNS, start + len(block))], block, floor
            )
            earlier, later = earlier + before, later + start
            once = earlier < later
            found.append(np.stack([earlier[once], later[once]]))
            total += found[-1].shape[1]
            budget.check(total)
    both = np.concatenate(found, axis=1) if found else np.empty((2, 0), np.int64)
    both = both[:, np.lexsort((both[1], both[0]))]
    return both[0], both[1]


def _above(one: Rows, two: Rows, floor: float) -> tuple[Indices, Indices]:
    """Return which rows of ``one`` and of ``two`` have an inner product of at least ``floor``."""
    hits = np.flatnonzero(two @ one.T >= floor)  # several times as fast as nonzero in two dimensions
    second, first = np.divmod(hits, len(one))
    return first, second


@dataclass(frozen=True)
class Partition:
    """Rows divided among lists.

    Attributes:
        near: [rows, probes], the lists a row looks into, the nearest centroid first; a row is a member of
            the first one.
        lists: how many there are.
    """

    near: npt.NDArray[np.uint16]
    lists: int

    def visits(self) -> Iterator[tuple[Indices, Indices]]:
        """Yield (rows that look into a list, members of that list) for every list."""
        home = np.argsort(self.near[:, 0], kind="stable")
        homes = np.searchsorted(self.near[home, 0], np.arange(self.lists + 1))
        flat = np.argsort(self.near.ravel(), kind="stable")
        looks = np.searchsorted(self.near.ravel()[flat], np.arange(self.lists + 1))
        probes = self.near.shape[1]
        for number in range(self.lists):
            members = home[homes[number] : homes[number + 1]]
            yield flat[looks[number] : looks[number + 1]] // probes, members


def partition(rows: Rows) -> Partition:
    """Divide rows by their direction from the mean: embeddings share a mean that says nothing.

    Centroids come from evenly spaced rows and a fixed seed, so equal rows give equal lists, up to the
    rounding of sums, which may differ with the number of threads.
    """
    import faiss

    count, width = rows.shape
    lists = int(min(_MOST_LISTS, max(1, count // _ROWS_PER_LIST)))
    probes = min(lists, max(_FEWEST_PROBES, round(lists * _SHARE_PROBED)))
    spaced = evenly_spaced(count, lists * _TRAINING_ROWS_PER_LIST)
    mean = rows[spaced].mean(axis=0)
    means = faiss.Kmeans(
        width,
        lists,
        niter=_TRAINING_ROUNDS,
        spherical=True,
        seed=_SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=_TRAINING_ROWS_PER_LIST,
    )
    means.train(_directions(rows[spaced], mean))
    index = faiss.IndexFlatIP(width)
    assert means.centroids is not None
    index.add(means.centroids)
    near = np.empty((count, probes), np.uint16)
    for start in range(0, count, ROWS_AT_ONCE):
        part = _directions(rows[start : start + ROWS_AT_ONCE], mean)
        near[start : start + len(part)] = index.search(part, probes)[1]
    return Partition(near, lists)


def partitioned_pairs(rows: Rows, floor: float, budget: PairBudget) -> Pairs:
    """Return nearly every pair whose inner product is at least ``floor``, in time linear in the rows."""
    count = len(rows)
    found: list[Indices] = []
    seen = 0
    for lookers, members in partition(rows).visits():
        if not len(members):
            continue
        theirs = rows[members]
        for start in range(0, len(lookers), _PRODUCT_ROWS):
            part = lookers[start : start + _PRODUCT_ROWS]
            two, one = _above(theirs, rows[part], floor)
            first, second = part[one], members[two]
            found.append(np.unique(_keys(first, second, count)))
            seen += len(found[-1])
            budget.check(seen // 2)  # a pair may be seen from both sides
    keys = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    budget.check(len(keys))
    return keys // count, keys % count


def sampled_recall(rows: Rows, floor: float, pairs: Pairs, sample: int = 256) -> float | None:
    """Return which share of the near pairs of some evenly spaced rows was found; None where there is none."""
    count = len(rows)
    chosen = evenly_spaced(count, sample)
    keys = pairs[0] * count + pairs[1]
    there = found = 0
    for start in range(0, count, ROWS_AT_ONCE):
        two, one = _above(rows[start : start + ROWS_AT_ONCE], rows[chosen], floor)
        wanted = _keys(chosen[one], start + two, count)
        place = np.minimum(np.searchsorted(keys, wanted), max(0, len(keys) - 1))
        there += len(wanted)
        found += int((keys[place] == wanted).sum()) if len(keys) else 0
    return found / there if there else None


def evenly_spaced(count: int, most: int) -> Indices:
    """Return at most ``most`` of the numbers below ``count``, from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def _keys(one: Indices, two: Indices, count: int) -> Indices:
    """Return each pair of different rows as one number, whichever comes first."""
    keys = np.minimum(one, two) * count + np.maximum(one, two)
    return np.asarray(keys[one != two], np.int64)


def _directions(rows: Rows, mean: Rows) -> Rows:
    """Return rows as unit vectors from ``mean``."""
    centred = rows - mean
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    centred /= np.where(lengths > 0, lengths, 1)
    return np.ascontiguousarray(centred, np.float32)
