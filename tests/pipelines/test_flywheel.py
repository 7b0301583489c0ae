"""The whole flywheel with the local runner and the store on S3: all stages for real, two training steps."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.catalogue import PIPELINES
from pipelines.local import run_local
from share4video.captioning.engine import shared_server
from share4video.cli.options import read_settings
from share4video.config import EngineSpec
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.evaluation.results import read_results
from share4video.events import StageEvent
from share4video.model_registry import fetch_checkpoint
from share4video.stages.chain import Chain
from share4video.store import LocalStore, Store
from share4video.work import WORK_VARIABLE
from tests.engines import FakeEngine
from tests.pipelines.material import start_share4video, write_config, write_source

WRITTEN = (".parquet", ".jsonl", ".safetensors")
BASE = "builtin:nano-base"
STAGES = {
    "mixture": {"grid_frames": 4},
    "train": {
        "base_model": BASE,
        "max_steps": 2,
        "batch_size": 2,
        "lora_rank": 4,
        "lora_alpha": 8,
        "precision": "fp32",
        "activation_checkpointing": False,
    },
    "gate": {"min_questions": 4},
}


def write_questions(folder: Path) -> Path:
    """Write two questions about each of the source's clips."""
    records = [
        {"video": f"clip-{n}.mp4", "question": f"Question {q}?", "candidates": ["yes", "no"], "answer": "yes"}
        for n in (1, 2)
        for q in (1, 2)
    ]
    folder.mkdir()
    (folder / "order.json").write_text(json.dumps(records))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_videos_become_a_released_model_on_s3_and_a_killed_run_publishes_the_same(
    s3_root: str, fake_engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORK_VARIABLE, str(tmp_path / "work"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    source = write_source(tmp_path / "source")
    file = str(write_config(tmp_path / "config.yaml", fake_engine, **STAGES))
    config = read_settings(file)
    questions = str(write_questions(tmp_path / "questions"))
    given = {"source": str(source), "questions": questions, "question_clips": str(source), "store": s3_root}
    killed = LocalStore(tmp_path / "killed")
    common = ["--config", file, "--store", str(killed.root)]
    asked = ["--questions", questions, "--question-clips", str(source), "--input", f"base_model={BASE}"]
    with shared_server([EngineSpec(model_path=BASE)]):
        arguments = PIPELINES["flywheel"].arguments(config, given)
        run = run_local("flywheel", arguments, tmp_path / "run")
        events: list[StageEvent] = []
        verbs = Chain(config, Store.open(s3_root), events.append)
        again = verbs.release(StageRef.parse(run.refs["train"]), questions, str(source))
        chain = Chain(config, killed)
        dataset = chain.caption(chain.curate(str(source))).dataset
        given_to_train = ["--source", str(source), "--input", f"dataset={dataset}"]
        refs = run_killed_at(("train",), ["train", *given_to_train, *common], tmp_path)
        given_to_release = ["--input", f"trained={refs['train']}", *asked]
        run_killed_at(("release",), ["release", *given_to_release, *common], tmp_path)

    assert {*run.finished} == {*PIPELINES["flywheel"].stages}  # the two evaluations end in any order
    for event in run.finished.values():
        assert event.rows_in == event.rows_out + sum(event.rejects.values())
    store = Store.open(s3_root)
    refs = {stage: StageRef.parse(ref) for stage, ref in run.refs.items()}
    assert load_manifest(store, refs["dataset"]).rows("clips") == 2
    assert (fetch_checkpoint(store, refs["train"]) / "model.safetensors").is_file()
    assert len(read_results(store, refs["evaluate-candidate"]).answers) == 4
    assert run.finished["release"].details["outcome"] in ("promoted", "refused")
    page = Path(run.finished["report"].label).read_text()
    assert "<html" in page
    assert str(tmp_path) not in page
    assert not run.unchanged

    data = written(store)
    assert {Path(key).suffix for key in data} == {*WRITTEN}
    assert written(killed) == data

    assert again.unchanged
    assert again.model_uri == run.finished["release"].details["model"]
    found = {event.stage: event for event in events if event.kind == "finished"}
    assert {*found} == {*PIPELINES["release"].stages}
    assert all(event.reused for event in found.values() if event.ref)
    assert {stage: event.ref for stage, event in found.items() if event.ref}.items() <= run.refs.items()


def run_killed_at(stages: Sequence[str], arguments: Sequence[str], folder: Path) -> dict[str, str]:
    """Run a pipeline by the command line, killed at the start of each stage in turn, and then whole.

    Returns:
        What each stage published, as it was printed.
    """

    def start() -> subprocess.Popen[bytes]:
        command = ["pipeline", "run", arguments[0], "--local", *arguments[1:]]
        return start_share4video(*command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    for stage in stages:
        victim = start()
        assert victim.stderr is not None
        with victim.stderr:
            lines = iter(victim.stderr.readline, b"")
            assert any(line.startswith(f"{stage} ...".encode()) for line in lines), f"it ended before {stage}"
            victim.kill()
            victim.wait()
        assert victim.stdout is not None
        victim.stdout.close()
    rest = start()
    printed, said = rest.communicate(timeout=600)
    assert rest.returncode == 0, said.decode()
    return dict(line.split()[:2] for line in printed.decode().splitlines() if len(line.split()) >= 2)


def written(store: Store) -> dict[str, bytes]:
    """What is published as data, by its key in the store."""
    return {key: store.get(key) for key in store.list("") if key.endswith(WRITTEN)}
