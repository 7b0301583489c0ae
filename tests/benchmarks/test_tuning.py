"""The tuning benchmark: what it judges by, and the whole of it on a few clips."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.tuning import BASE, SHUFFLED, TUNED, bars, measure, tables
from share4video.cli.options import read_settings
from share4video.synthetic.clips import write_demo_set


def _model(
    static: float, temporal: float, *, text_only: float = 0.4, unparsable: int = 0, unanswered: int = 0
) -> dict[str, Any]:
    def interval(value: float) -> dict[str, float]:
        return {"estimate": value, "low": value - 0.05, "high": value + 0.05}

    groups = {
        group: {"accuracy": interval(value), "text_only": interval(text_only), "chance": 0.4}
        for group, value in (("static", static), ("temporal", temporal))
    }
    return {"unparsable": unparsable, "unanswered": unanswered, **groups}


GOOD = {
    "questions": 420,
    "models": {BASE: _model(0.93, 0.43), TUNED: _model(0.92, 0.75), SHUFFLED: _model(0.9, 0.4)},
    "tuned_minus_shuffled": {"temporal": {"estimate": 0.35, "low": 0.3, "high": 0.4}},
}


def test_a_good_result_meets_every_bar() -> None:
    assert all(bar.met for bar in bars(GOOD))


@pytest.mark.parametrize(
    ("models", "missed"),
    [
        ({BASE: _model(0.89, 0.43)}, "base, static"),
        ({BASE: _model(0.93, 0.51)}, "base, temporal, from its text-only control"),
        ({BASE: _model(0.93, 0.29)}, "base, temporal, from its text-only control"),
        ({TUNED: _model(0.92, 0.69)}, "tuned, temporal"),
        ({TUNED: _model(0.89, 0.75)}, "static lost by tuning"),
        ({TUNED: _model(0.92, 0.75, text_only=0.46)}, "text-only controls, farthest from chance"),
        ({TUNED: _model(0.92, 0.75, unparsable=1)}, "unparsable answers"),
        ({SHUFFLED: _model(0.9, 0.4, unparsable=1)}, "unparsable answers"),
        ({BASE: _model(0.93, 0.43, unanswered=1)}, "questions without an answer"),
    ],
)
def test_each_bar_can_be_missed(models: dict[str, Any], missed: str) -> None:
    results: dict[str, Any] = copy.deepcopy(GOOD)
    results["models"] |= models
    assert [bar.what for bar in bars(results) if not bar.met] == [missed]


def test_captions_that_do_not_matter_are_noticed() -> None:
    results: dict[str, Any] = copy.deepcopy(GOOD)
    results["tuned_minus_shuffled"]["temporal"]["low"] = 0.0
    results["questions"] = 399
    missed = [bar.what for bar in bars(results) if not bar.met]
    assert missed == ["questions", "tuned over shuffled captions, temporal, lower bound"]


@pytest.mark.timeout(600)
def test_the_whole_benchmark(tmp_path: Path, work_root: Path) -> None:
    """Real clips, stages and models; two steps of training teach nothing, and that is what it says."""
    made = write_demo_set(tmp_path / "set", clips=4, heldout=4, questions_per_task=2)
    config = read_settings("laptop", ["evaluate.control=true", "train.max_steps=2"])
    results = measure(tmp_path, made, config, seed=0)
    assert set(results["models"]) == {BASE, TUNED, SHUFFLED}
    assert results["clips"]["held_out"] == 4 and 4 <= results["clips"]["train"] <= 7
    assert all(training["steps"] == 2 for training in results["training"].values())
    assert 6 <= results["questions"] <= 14
    assert json.loads(json.dumps(results)) == results
    sink = io.StringIO()
    for table in tables(results):
        Console(file=sink, width=100).print(table)
    assert "shuffled" in sink.getvalue() and "text-only controls" in sink.getvalue()
    assert not all(bar.met for bar in bars(results))
