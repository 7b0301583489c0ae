"""De-duplication at scale: the exact search beside its bare products, the partitioned one beside the truth.

    python benchmarks/dedup.py --out benchmarks/results/dedup.json

Embeddings share a mean, as those of captions do: two unrelated ones are at cosine 0.8. A fifth of the rows
are in planted groups of 2 to 1,000, half of whose members are within 0.02 of the threshold to their group's
first. Nothing else comes near it, so that the near pairs are known: in the smaller set the exact search
confirms that, in the larger one they are the truth.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console

from benchmarks.bars import Bar, bars_table
from benchmarks.command import run, write_results
from benchmarks.environment import environment
from share4video.curation.dedup import Thresholds, admit
from share4video.curation.neighbours import NearPairs, find_pairs

DIMENSIONS = 768
SHARED = 0.8  # cosine of unrelated rows
THRESHOLD, NEAR, FLOOR = 0.95, 0.02, 0.92
GROUPED_SHARE, SMALLEST, LARGEST = 0.2, 2, 1000
BLOCK_ROWS = 1024
EXACT_RATIO, PARTITIONED_S, MEMORY_GB, RECALL = 1.5, 360.0, 8.0, 0.99

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Planted:
    """Rows of length 1, and the members of each group, its first one first."""

    rows: Rows
    groups: list[npt.NDArray[np.int64]]


def plant(count: int, seed: int = 0) -> Planted:
    """Make ``count`` rows with planted groups."""
    rng = np.random.default_rng(seed)
    rows = np.empty((count, DIMENSIONS), np.float32)
    for start in range(0, count, 1 << 16):
        block = rows[start : start + (1 << 16)]
        rng.standard_normal(out=block, dtype=np.float32)
        block[:, 0] = 0  # the shared direction
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    shuffled = rng.permutation(count)
    groups, used = [], 0
    while used < GROUPED_SHARE * count:
        size = round(SMALLEST * (LARGEST / SMALLEST) ** rng.random())
        groups.append(shuffled[used : used + size])
        used += size
    for group in groups:
        first, others = rows[group[0]], rows[group[1:]]
        cosine = np.where(
            rng.random(len(others)) < 0.5, THRESHOLD + NEAR * rng.uniform(-1, 1, len(others)), 0.985
        )
        own = ((cosine - SHARED) / (1 - SHARED)).astype(np.float32)[:, None]
        apart = others - (others @ first)[:, None] * first
        apart /= np.linalg.norm(apart, axis=1, keepdims=True)
        rows[group[1:]] = own * first + np.sqrt(1 - own**2) * apart
    rows *= np.float32(np.sqrt(1 - SHARED))
    rows[:, 0] = np.float32(np.sqrt(SHARED))
    return Planted(rows, groups)


def planted_pairs(planted: Planted) -> NearPairs:
    """Return the pairs within groups that reach the floor, as an exact search gives them."""
    one, two, similar = [], [], []
    for group in planted.groups:
        members = np.sort(group)
        rows = planted.rows[members].astype(np.float64)
        cosines = np.triu(rows @ rows.T, k=1).astype(np.float32)
        left, right = np.nonzero(cosines >= np.float32(FLOOR))
        one.append(members[left])
        two.append(members[right])
        similar.append(cosines[left, right])
    clip, other, text = np.concatenate(one), np.concatenate(two), np.concatenate(similar)
    order = np.lexsort((other, clip))
    return NearPairs(clip[order], other[order], text[order], None, FLOOR)


def bare_products_s(rows: Rows) -> float:
    """Return how long the inner products take that an exact search needs, with nothing done with them."""
    began = time.perf_counter()
    for start in range(0, len(rows), BLOCK_ROWS):
        rows[start : start + BLOCK_ROWS] @ rows[: start + BLOCK_ROWS].T
    return time.perf_counter() - began


def kept(pairs: NearPairs, count: int) -> npt.NDArray[np.bool_]:
    """Return which rows are admitted, in their own order."""
    return np.array([a.kept for a in admit(range(count), pairs, Thresholds(THRESHOLD, None))])


def keys(pairs: NearPairs, count: int, least: float) -> npt.NDArray[np.int64]:
    """Return the pairs at least so alike, as one sorted number each."""
    assert pairs.text is not None
    near = pairs.text >= np.float32(least)
    return np.sort(pairs.clip[near] * count + pairs.other[near])


def measure_exact(count: int) -> dict[str, Any]:
    """Time the exact search beside its products, three times in turn; the fastest of each counts."""
    planted = plant(count)
    bare, searched = [], []
    for _ in range(3):
        bare.append(bare_products_s(planted.rows))
        began = time.perf_counter()
        found = find_pairs(text=planted.rows, floor=FLOOR, search="exact")
        searched.append(time.perf_counter() - began)
    truth = planted_pairs(planted)
    return {
        "rows": count,
        "near_pairs": len(found.clip),
        "bare_products_s": [round(s, 2) for s in bare],
        "exact_search_s": [round(s, 2) for s in searched],
        "ratio": round(min(searched) / min(bare), 3),
        "finds_what_was_planted": bool(np.array_equal(keys(found, count, FLOOR), keys(truth, count, FLOOR))),
    }


def measure_partitioned(count: int) -> dict[str, Any]:
    """Time the partitioned search and the admission, and hold both against what was planted."""
    planted = plant(count)
    truth = planted_pairs(planted)
    began = time.perf_counter()
    found = find_pairs(text=planted.rows, floor=FLOOR, search="partitioned")
    search_s = time.perf_counter() - began
    began = time.perf_counter()
    admitted = kept(found, count)
    admission_s = time.perf_counter() - began
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    # Of the rows whose fate a pair could decide: nearly all of the others agree of themselves.
    near = keys(truth, count, THRESHOLD)
    concerned = np.unique(np.concatenate([near // count, near % count]))
    agreement = admitted[concerned] == kept(truth, count)[concerned]
    return {
        "rows": count,
        "planted_near_pairs": len(near),
        "search_s": round(search_s, 1),
        "admission_s": round(admission_s, 1),
        "peak_rss_gb": round(peak_gb, 2),
        "recall_at_threshold": _share(near, keys(found, count, THRESHOLD)),
        "recall_at_floor": _share(keys(truth, count, FLOOR), keys(found, count, FLOOR)),
        "recall_it_measured_itself": found.recall,
        "rows_with_near_ones": len(concerned),
        "agreement_of_the_kept_among_these": round(float(agreement.mean()), 5),
    }


def _share(wanted: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> float:
    return round(float(np.isin(wanted, found, assume_unique=True).mean()), 5)


def main(
    exact: Annotated[int, typer.Option("--exact", help="Rows of the exact search.")] = 100_000,
    partitioned: Annotated[
        int, typer.Option("--partitioned", help="Rows of the partitioned search.")
    ] = 1_000_000,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write the results.")] = None,
) -> None:
    """Measure both searches and hold them against their bars."""
    console = Console()
    many = measure_partitioned(partitioned)
    console.print(many)
    some = measure_exact(exact)
    console.print(some)
    whole_s = round(many["search_s"] + many["admission_s"], 1)
    bars = [
        Bar("exact search over its bare products", some["ratio"], f"<= {EXACT_RATIO}"),
        Bar("exact search finds what was planted", float(some["finds_what_was_planted"]), ">= 1"),
        Bar("partitioned search and admission, s", whole_s, f"<= {PARTITIONED_S:g}"),
        Bar("peak memory, GB", many["peak_rss_gb"], f"<= {MEMORY_GB:g}"),
        Bar("recall of planted pairs", many["recall_at_threshold"], f">= {RECALL}"),
        Bar("agreement of the kept", many["agreement_of_the_kept_among_these"], f">= {RECALL}"),
    ]
    console.print(bars_table(bars))
    results = {
        "measured": "time, memory and recall of the search for near pairs",
        "data": {"dimensions": DIMENSIONS, "threshold": THRESHOLD, "floor": FLOOR, "unrelated": SHARED},
        "exact": some,
        "partitioned": many,
        "bars": [bar.to_json() for bar in bars],
        **environment(["share4video", "numpy", "faiss-cpu"]),
    }
    write_results(out, results)


if __name__ == "__main__":
    run(main)
