"""The benchmark of the method, on a few clips, with the real captioner."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.differential import RULES, measure, tables
from share4video.captioning.engine import resolve
from share4video.config import EngineSpec


@pytest.mark.timeout(300)
def test_five_ways_to_caption_the_same_clips(tmp_path: Path, work_root: Path) -> None:
    engines = [
        resolve(EngineSpec(model_path=f"builtin:nano-{name}", max_in_flight=2))
        for name in ("captioner", "summarizer")
    ]
    results = measure(tmp_path, 2, *engines)
    methods = results["methods"]
    assert set(methods) == set(RULES)
    assert results["clips"] == 2
    for name, method in methods.items():
        whole = method["all"]
        groups = [part for group, part in method.items() if group not in ("all", "seconds")]
        for count in ("clips", "right", "wrong", "missed", "ordered_pairs"):
            assert sum(group[count] for group in groups) == whole[count], (name, count)
        assert ("summary" in whole) == (name not in ("fast", "independent windows"))
    facts = {name: method["all"]["right"] + method["all"]["missed"] for name, method in methods.items()}
    assert len(set(facts.values())) == 1  # all are held against the same truth
    f1 = {name: method["all"]["f1"]["estimate"] for name, method in methods.items()}
    assert f1["differential"] > 0.7 > f1["fast"]
    assert len(tables(results)) >= 2
