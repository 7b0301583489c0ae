"""The components as plain functions: what they hand to KFP, and what they make of bad parameters."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.evaluate.component import evaluate_champion
from components.keyframes.component import keyframes_finish, keyframes_plan, keyframes_shard
from components.probe.component import probe_finish, probe_plan, probe_shard
from components.release.component import release
from share4video.dataset.manifest import StageRef
from share4video.errors import ERROR_FILE_VARIABLE, UserError
from share4video.events import EVENTS_VARIABLE, EventReader
from share4video.stages.contract import StageResult
from share4video.stages.task import stage_task
from share4video.store import LocalStore
from tests.pipelines.material import write_source
from tests.registry_material import (
    forget_mlflow,
    make_database,
    place_database,
    publish_checkpoint,
    publish_evaluation,
)

FOLDER = Path(__file__).parents[2] / "components"


@dataclass
class Artifact:
    """What a task gets of KFP for an output."""

    path: str = ""
    uri: str = "given by KFP"
    metadata: dict[str, Any] = field(default_factory=dict)

    def log_metric(self, name: str, value: float) -> None:
        assert math.isfinite(value)
        self.metadata[name] = value


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EventReader:
    monkeypatch.setenv(EVENTS_VARIABLE, str(tmp_path / "events.jsonl"))
    monkeypatch.setenv(ERROR_FILE_VARIABLE, str(tmp_path / "error.json"))
    return EventReader(tmp_path / "events.jsonl")


def outputs(folder: Path, *names: str) -> dict[str, Artifact]:
    return {name: Artifact(str(folder / name)) for name in names}


def test_stages_run_as_tasks(tmp_path: Path, events: EventReader) -> None:
    source, store = str(write_source(tmp_path / "source")), str(tmp_path / "store")
    probing = {"source": source, "config": json.dumps({"shards": 2}), "store": store}
    shards = probe_plan.python_func(**probing)
    assert [probe_shard.python_func(shard=shard, **probing) for shard in shards] == shards
    made = outputs(tmp_path, "clips", "metrics", "summary")
    ref = probe_finish.python_func(shards=shards, **probing, **made)
    assert made["clips"].uri == str(tmp_path / "store" / StageRef.parse(ref).prefix)
    assert made["clips"].metadata == {"ref": ref}
    assert made["metrics"].metadata["rows_in"] == 4
    assert made["metrics"].metadata["rejected_not_video"] == 1
    assert "| rejected: not_video | 1 |" in Path(made["summary"].path).read_text()

    work = {"clips": ref, "source": source, "config": json.dumps({"shards": 2}), "store": store}
    shards = keyframes_plan.python_func(**work)
    assert shards == ["0", "1"]
    for shard in shards:
        assert keyframes_shard.python_func(shard=shard, **work) == shard
    made = outputs(tmp_path, "keyframes", "metrics", "summary")
    published = keyframes_finish.python_func(**work, **made)
    assert StageRef.parse(published).stage == "keyframes"
    seen = events.read()
    assert [(e.kind, e.shard) for e in seen if e.stage == "keyframes" and e.kind == "finished"] == [
        ("finished", 0),
        ("finished", 1),
        ("finished", None),
    ]


def test_a_mistake_is_left_for_who_started_the_task(tmp_path: Path, events: EventReader) -> None:
    with pytest.raises(UserError):
        probe_plan.python_func(source=str(tmp_path), config='{"min_fps": -1}', store=str(tmp_path / "s"))
    left = json.loads((tmp_path / "error.json").read_text())
    assert left["where"] == "ProbeConfig, min_fps"
    assert [event.kind for event in events.read()] == ["started", "failed"]


def test_a_number_that_is_not_finite_stays_out_of_kfp(tmp_path: Path, events: EventReader) -> None:
    result = StageResult(StageRef("s", "k", "h"), 1, 1, metrics={"loss": math.nan, "steps": 2.0})
    metrics = Artifact()
    with stage_task("s", str(tmp_path)) as task:
        task.finish(result, metrics=metrics, details={"decision": "a | b"})
    assert metrics.metadata == {"rows_in": 1.0, "rows_out": 1.0, "steps": 2.0}
    assert events.read()[-1].metrics == {"steps": 2.0}


def test_a_release_is_compared_with_the_champion(
    tmp_path: Path, events: EventReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tasks of the release pipeline one after another, twice: without a champion and with one."""
    forget_mlflow(monkeypatch)
    store = LocalStore(tmp_path / "store")
    place_database(make_database(tmp_path), store.root)
    base = str(publish_evaluation(store, "base@1", {"order": (50, 100)}))
    champions, candidates = [], []
    for weights, right in (("one", 80), ("two", 95)):
        model = publish_checkpoint(store, weights)
        candidates.append(str(publish_evaluation(store, model, {"order": (right, 100)})))
        about = {"name": "chat", "candidate": candidates[-1], "config": "{}", "store": str(store.root)}
        made = outputs(tmp_path, "results", "metrics", "summary")
        champions.append(
            evaluate_champion.python_func(trained=str(model), questions="q", clips="c", **about, **made)
        )
        made = outputs(tmp_path, "decision", "metrics", "summary")
        release.python_func(model=str(model), base=base, champion=champions[-1], **about, **made)
        assert made["metrics"].metadata["promoted"] == 1.0
    assert champions == ["", candidates[0]]
    finished = [event for event in events.read() if event.kind == "finished"]
    assert [event.stage for event in finished] == ["evaluate-champion", "release"] * 2
    assert finished[2].reused


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("component.py")), ids=lambda file: file.parent.name)
def test_a_component_is_thin(file: Path) -> None:
    """KFP reads annotations at run time and ships the body's text: it may import the library and no more."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "__future__"
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        for node in ast.walk(function):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").startswith("share4video.")
            assert not isinstance(node, ast.Import)
