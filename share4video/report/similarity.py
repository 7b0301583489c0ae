"""How alike the clips are: histograms of the stored pairs, with what makes a duplicate marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.shards import read_table
from share4video.report.run_tables import RunTables

BIN_WIDTH = 0.02
_MAX_LOOKED_AT = 200
# column of the pairs -> what it compares, and its name in settings and in the sweep
_MEASURES = {"text_similarity": ("captions", "text"), "visual_similarity": ("looks", "visual")}


@dataclass(frozen=True)
class Bin:
    """Pairs whose similarity is in ``[low, high)``; ``near`` of them are near in everything that is asked."""

    low: float
    high: float
    pairs: int
    near: int


@dataclass(frozen=True)
class Kept:
    """How many clips a threshold would keep, the other similarity's threshold being what it is."""

    threshold: float
    clips: int


@dataclass(frozen=True)
class Histogram:
    """The pairs by one similarity. ``threshold`` is None where no clip was decided by this similarity."""

    measure: str
    bins: tuple[Bin, ...]
    threshold: float | None
    sweep: tuple[Kept, ...] = ()

    @property
    def highest(self) -> int:
        return max(b.pairs for b in self.bins)

    @property
    def low(self) -> float:
        return self.bins[0].low

    def place(self, similarity: float) -> float:
        """Return where a similarity is on the axis, in percent of its length."""
        return 100 * (similarity - self.low) / (self.bins[-1].high - self.low)


@dataclass(frozen=True)
class Similarity:
    """Pairs above ``floor``: less similar ones were not stored."""

    histograms: tuple[Histogram, ...]
    pairs: int
    dropped: int
    floor: float


def similarity(tables: RunTables) -> Similarity | None:
    """Return how alike the clips were; None where nothing was de-duplicated or no pair is above the floor."""
    ref = tables.refs.get("dedup")
    if ref is None:
        return None
    config = load_manifest(tables.store, ref).config
    if "@neighbours" not in config:
        return None  # published before pairs were kept by themselves
    compared = load_manifest(tables.store, StageRef.parse(config["@neighbours"]))
    pairs = read_table(tables.store, compared.ref, "neighbours")
    decided = read_table(tables.store, ref, "dedup")
    measures = [name for name in _MEASURES if pairs.num_rows and pairs[name].null_count == 0]
    if not measures:
        return None
    values = {name: pairs[name].to_numpy().astype(np.float64) for name in measures}
    found = _thresholds(pairs, decided, measures)
    thresholds = {
        name: _first(config.get(f"{_MEASURES[name][1]}_threshold"), found.get(name)) for name in measures
    }
    sweep = read_table(tables.store, ref, "sweep").to_pylist()
    near = np.ones(pairs.num_rows, bool)
    for name, threshold in thresholds.items():
        near &= values[name] >= np.float32(-1.0 if threshold is None else threshold)
    floor = compared.counts["metric:floor"]
    return Similarity(
        histograms=tuple(
            Histogram(
                _MEASURES[name][0],
                _bins(values[name], near, floor),
                thresholds[name],
                tuple(
                    Kept(row["threshold"], row["kept"])
                    for row in sweep
                    if row["measure"] == _MEASURES[name][1]
                ),
            )
            for name in measures
        ),
        pairs=pairs.num_rows,
        dropped=decided["kept"].to_pylist().count(False),
        floor=floor,
    )


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _bins(values: npt.NDArray[np.float64], near: npt.NDArray[np.bool_], floor: float) -> tuple[Bin, ...]:
    """Count pairs in bins of `BIN_WIDTH` that end at 1; the last one holds 1 itself."""
    count = max(1, int(np.ceil((1.0 - floor) / BIN_WIDTH - 1e-9)))
    edges = 1.0 - BIN_WIDTH * np.arange(count, -1, -1)
    numbers = np.clip(np.searchsorted(edges, values + 1e-6, side="right") - 1, 0, count - 1)
    every = np.bincount(numbers, minlength=count)
    marked = np.bincount(numbers[near], minlength=count)
    return tuple(
        Bin(float(edges[i]), float(edges[i + 1]), int(every[i]), int(marked[i])) for i in range(count)
    )


def _thresholds(pairs: pa.Table, decided: pa.Table, measures: Sequence[str]) -> dict[str, float]:
    """Read off which threshold belongs to which similarity.

    A decided clip's similarity is one of the similarities of its pair, and is held against that measure's
    threshold. Where an encoder's own threshold was used, this is the one place that records it.
    """
    decisive = pc.is_valid(decided["nearest_kept_id"])
    lonely = decided["threshold"].filter(pc.invert(decisive))
    # A clip that had nobody near it is held against the first threshold there is.
    found = {measures[0]: float(lonely[0].as_py())} if len(lonely) else {}
    for row in decided.filter(decisive).slice(0, _MAX_LOOKED_AT).to_pylist():
        ids = pa.array([row["clip_id"], row["nearest_kept_id"]])
        of_pair = pc.and_(pc.is_in(pairs["clip_id"], ids), pc.is_in(pairs["other_id"], ids))
        for pair in pairs.filter(of_pair).to_pylist():
            equal = [name for name in measures if pair[name] == row["similarity"]]
            if len(equal) == 1:  # equal in both says nothing
                found[equal[0]] = float(row["threshold"])
        if len(found) == len(measures):
            break
    return found
