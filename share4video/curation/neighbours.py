"""Pairs of clips that are alike, found once; every de-duplication above their floor is replayed from them.

A clip is described by its caption's embedding, by its looks, or by both. Its looks are the encodings of a few
frames at the same shares of its duration, and two clips look as alike as their *least* alike pair of such
frames. An average over time would not do: it is blind to the order of events, and a copy in which one event
differs is the same clip for all but one or two frames.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from share4video.curation.candidates import (
    Indices,
    PairBudget,
    Pairs,
    Rows,
    every_pair,
    partitioned_pairs,
    sampled_recall,
)
from share4video.curation.described import searched_rows
from share4video.curation.encoders import Vectors
from share4video.dataset.schema import TABLES

Mode = Literal["text", "visual", "both"]
Search = Literal["auto", "exact", "partitioned"]

EXACT_ROWS = 300_000  # up to here ``auto`` looks at every pair

_MARGIN = 1e-4  # the search works in float32 sums of any order; what it finds is measured again exactly
_MEASURE_BYTES = 6 << 20


@dataclass(frozen=True, eq=False)
class NearPairs:
    """Every pair of clips at least ``floor`` alike in all that was asked for, each pair once.

    Attributes:
        clip, other: numbers of the clips, ``clip < other``, in lexical order.
        text: cosine of the captions' embeddings; None where captions were not compared.
        looks: similarity of the least alike frames; None where looks were not compared.
        floor: no pair below it is held.
        recall: which share of the pairs of a sample of clips was found; None where all pairs were looked at.
    """

    clip: Indices
    other: Indices
    text: Vectors | None
    looks: Vectors | None
    floor: float
    recall: float | None = None

    @property
    def similarity(self) -> Vectors:
        """The lower one of a pair's similarities: it is at least t where all of them are."""
        parts = [part for part in (self.text, self.looks) if part is not None]
        lowest: Vectors = np.minimum.reduce(parts)
        return lowest

    def to_table(self, clip_ids: Sequence[str]) -> pa.Table:
        """Return table ``neighbours``; ``clip_ids`` must be sorted."""
        ids = pa.array(clip_ids, pa.string())
        nothing = pa.nulls(len(self.clip), pa.float32())
        columns = {
            "clip_id": ids.take(pa.array(self.clip)),
            "other_id": ids.take(pa.array(self.other)),
            "similarity": pa.array(self.similarity),
            "text_similarity": nothing if self.text is None else pa.array(self.text),
            "visual_similarity": nothing if self.looks is None else pa.array(self.looks),
        }
        return pa.table(columns, schema=TABLES["neighbours"])

    @classmethod
    def from_table(cls, table: pa.Table, clip_ids: Sequence[str], *, mode: Mode, floor: float) -> NearPairs:
        """Read table ``neighbours`` back; ``clip_ids``, ``mode`` and ``floor`` are those it was written with.

        Raises:
            KeyError: a pair names a clip that is not listed.
        """
        number = {clip_id: index for index, clip_id in enumerate(clip_ids)}

        def indices(column: str) -> Indices:
            return np.array([number[clip_id] for clip_id in table[column].to_pylist()], np.int64)

        def values(column: str, asked: bool) -> Vectors | None:
            return table[column].to_numpy().astype(np.float32) if asked else None

        return cls(
            indices("clip_id"),
            indices("other_id"),
            values("text_similarity", mode in ("text", "both")),
            values("visual_similarity", mode in ("visual", "both")),
            floor,
        )


def find_pairs(
    *,
    text: npt.NDArray[np.floating] | None = None,
    looks: npt.NDArray[np.floating] | None = None,
    floor: float,
    max_pairs_per_row: int = 1000,
    search: Search = "auto",
) -> NearPairs:
    """Find the pairs at least ``floor`` alike: all of them, or in a partitioned search nearly all.

    The similarity of what is found is measured in float64, so that it depends on neither block size, thread
    count nor the order of the clips.

    Args:
        text: [clips, dimensions], rows of length 1 (or 0: alike to nothing).
        looks: [clips, frames, dimensions], rows of length 1.
        floor: with both, a pair must reach it in both.
        max_pairs_per_row: how many pairs per clip may be found, on average, before the search is given up.
        search: ``auto`` looks at every pair of up to ``EXACT_ROWS`` clips, and divides more of them among
            lists (``candidates``).

    Raises:
        ValueError: neither is given, or the two do not describe equally many clips.
        UserError: more pairs than that: the floor is too low for these embeddings.
    """
    if text is None and looks is None:
        raise ValueError("nothing to compare: give text, looks or both")
    if text is not None and looks is not None and len(text) != len(looks):
        raise ValueError(f"{len(text)} captions and {len(looks)} looks")
    rows = searched_rows(text, looks)
    budget = PairBudget(floor, len(rows), max_pairs_per_row)
    (clip, other), recall = _candidates(rows, floor, search, budget)
    measured_text = measured_looks = None
    keep = np.ones(len(clip), bool)
    if looks is not None:
        measured_looks = _measure(looks, clip, other)
        keep &= measured_looks >= np.float32(floor)
    if text is not None:
        measured_text = _measure(text[:, None, :], clip, other)
        keep &= measured_text >= np.float32(floor)
    return NearPairs(
        clip[keep],
        other[keep],
        None if measured_text is None else measured_text[keep],
        None if measured_looks is None else measured_looks[keep],
        floor,
        recall,
    )


def _candidates(rows: Rows, floor: float, search: Search, budget: PairBudget) -> tuple[Pairs, float | None]:
    """Return the pairs whose inner product may reach ``floor``; the recall where not all were looked at."""
    if search == "exact" or (search == "auto" and len(rows) <= EXACT_ROWS):
        return every_pair(rows, floor - _MARGIN, budget), None
    pairs = partitioned_pairs(rows, floor - _MARGIN, budget)
    return pairs, sampled_recall(rows, floor, pairs)


def _measure(frames: npt.NDArray[np.floating], clip: Indices, other: Indices) -> Vectors:
    """Return the lowest frame similarity of each pair; ``frames`` is [clips, frames, dimensions]."""
    result = np.empty(len(clip), np.float32)
    # Few at a time: they are to stay in the cache from being gathered to being summed up.
    step = max(1, _MEASURE_BYTES // (16 * max(1, frames.shape[1] * frames.shape[2])))

    def measure(start: int) -> None:
        span = slice(start, start + step)
        one, two = frames[clip[span]].astype(np.float64), frames[other[span]].astype(np.float64)
        result[span] = np.einsum("pfd,pfd->pf", one, two).min(axis=1)

    with ThreadPoolExecutor(os.cpu_count() or 1, "measure") as threads:
        for _ in threads.map(measure, range(0, len(clip), step)):
            pass
    return result
