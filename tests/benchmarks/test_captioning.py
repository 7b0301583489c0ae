"""The captioning benchmark on a few clips and quick calls, and what is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.captioning import bars, ideal, measure
from benchmarks.captioning_runs import LONGEST, lengths

GOOD: dict[str, Any] = {
    "time": {"share_of_ideal": 0.9},
    "memory": {"queued": {"10": {"peak_mb": 480.0}, "100": {"peak_mb": 500.0}}, "growth": 1.05},
    "kills": {"calls_repeated": 9, "in_flight_at_the_kills": 9, "files_that_differ": 0},
}


@pytest.mark.timeout(300)
def test_the_whole_benchmark(tmp_path: Path) -> None:
    results = measure(
        tmp_path,
        clips=8,
        lock_step_clips=5,
        mean_s=0.02,
        side=16,
        queued=(40, 80),
        memory_calls=50,
        kills=1,
        killed_clips=12,
        seed=3,
    )
    assert json.loads(json.dumps(results)) == results
    timed, memory, kills = results["time"], results["memory"], results["kills"]
    assert timed["calls"] == sum(lengths(8, 3)) + 8
    assert timed["ideal_s"] == pytest.approx(max(timed["work_s"] / 64, timed["longest_chain_s"]), abs=0.1)
    assert 0 < timed["share_of_ideal"] < 1
    assert timed["lock_step"]["clips"] == 5
    assert 0 < timed["lock_step"]["share_of_ideal"] < 1
    assert all(peak["peak_mb"] > 50 and peak["calls"] >= 20 for peak in memory["queued"].values())
    assert kills["calls_repeated"] <= kills["in_flight_at_the_kills"] <= 16 * kills["kills"]
    assert kills["files_that_differ"] == 0
    assert results["bars"] == [bar.to_json() for bar in bars(results)]


def test_clips_are_short_and_long() -> None:
    drawn = lengths(2000, 1)
    assert (min(drawn), max(drawn)) == (1, LONGEST)
    assert lengths(10, 1) == drawn[:10]


def test_ideal_is_full_slots_or_the_longest_chain() -> None:
    assert ideal({str(n): 2.0 for n in range(64)}) == 2.0
    assert ideal({str(n): 2.0 for n in range(640)}) == 20.0
    assert ideal({"a": 9.0, "b": 1.0}) == 9.0


def test_what_is_good_enough_is_judged_so() -> None:
    assert [bar.met for bar in bars(GOOD)] == [True] * 5


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("time", {"share_of_ideal": 0.89}),
        ("memory", {"queued": {"100": {"peak_mb": 501.0}}}),
        ("memory", {"growth": 1.06}),
        ("kills", {"calls_repeated": 10}),
        ("kills", {"files_that_differ": 1}),
    ],
)
def test_each_bar_can_be_missed(part: str, change: dict[str, Any]) -> None:
    results = {**GOOD, part: {**GOOD[part], **change}}
    assert len([bar for bar in bars(results) if not bar.met]) == 1
