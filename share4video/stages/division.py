"""How the clips of a wide stage are divided into shards of about equal work."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import read_table
from share4video.stages.clip_frames import Row
from share4video.store import Store


def clips_by_shard(store: Store, clips: StageRef, shards: int) -> list[list[Row]]:
    """Return the rows of table ``clips`` of each shard, by id; there is at least one shard.

    The work is taken to grow with seconds times pixels.

    Raises:
        RuntimeError: a clip is listed twice.
    """
    return by_work(clips_by_id(store, clips), shards)


def clips_by_id(store: Store, clips: StageRef) -> list[Row]:
    """Return the rows of table ``clips``, sorted by id. Raises RuntimeError where a clip is listed twice."""
    rows: list[Row] = read_table(store, clips, "clips").sort_by("clip_id").to_pylist()
    if len({row["clip_id"] for row in rows}) < len(rows):
        raise RuntimeError(f"{clips}: a clip is listed twice")
    return rows


def by_work(rows: Sequence[Row], shards: int) -> list[list[Row]]:
    """Divide rows of table ``clips`` as `clips_by_shard` does, in their order."""
    weights = [row["duration_s"] * row["width"] * row["height"] for row in rows]
    return [[rows[number] for number in group] for group in divide(weights, shards)]


def divide(weights: Sequence[float], shards: int) -> list[list[int]]:
    """Divide things into at most ``shards`` groups of about equal weight, as `shares` does.

    Returns:
        The numbers of each group's members, ascending; no group is empty unless there is nothing to divide.
    """
    groups: list[list[int]] = [[] for _ in range(max(1, min(shards, len(weights))))]
    for number, group in enumerate(shares(np.asarray(weights, np.float64), len(groups))):
        groups[group].append(number)
    return groups


def shares(weights: npt.NDArray[np.generic], groups: int) -> npt.NDArray[np.int32]:
    """Deal things out to ``groups`` groups of about equal weight; return the group of each.

    The heaviest goes first, each to the group that is lightest so far; ties by members, then by number.
    """
    dealt = np.zeros(len(weights), np.int32)
    loads = [(0.0, 0, group) for group in range(groups)]
    for thing in np.lexsort((np.arange(len(weights)), -weights.astype(np.float64))):
        load, members, group = loads[0]
        dealt[thing] = group
        heapq.heapreplace(loads, (load + float(weights[thing]), members + 1, group))
    return dealt
