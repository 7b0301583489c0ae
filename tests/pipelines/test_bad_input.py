"""Bad input to a pipeline, through the real command line: exit code 2 and one sentence, no traceback.

The mistake is noticed in a task, two processes below the one that says it.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from share4video.captioning.checkpoints import checkpoint_folder
from share4video.config import DatasetConfig
from share4video.stages import dataset
from share4video.store import LocalStore
from share4video.work import WORK_VARIABLE
from tests.engines import FakeEngine
from tests.pipelines.material import start_share4video, write_config
from tests.registry_material import forget_mlflow
from tests.stages.captioned import publish_captioned

TRAIN = {"max_steps": 1, "batch_size": 1, "precision": "fp32", "activation_checkpointing": False}


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_mlflow(monkeypatch)
    monkeypatch.setenv(WORK_VARIABLE, str(tmp_path / "work"))


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an MLflow server that is not there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return address


def refused(pipeline: str, folder: Path, *arguments: str) -> str:
    """Run a pipeline that must be refused; return the sentence."""
    command = ("pipeline", "run", pipeline, "--local", "--store", str(folder / "store"), *arguments)
    with start_share4video(*command, cwd=folder, stderr=subprocess.PIPE) as process:
        try:
            said = process.communicate(timeout=200)[1].decode()
        finally:
            process.kill()  # where it hangs; its tasks end with it
    assert process.returncode == 2, said
    assert "Traceback" not in said
    sentence = said.splitlines()[-1]
    assert sentence.startswith("share4video: ")
    assert sentence.endswith(".")
    return sentence.removeprefix("share4video: ")


def trainable(folder: Path, **train: object) -> list[str]:
    """Publish a dataset of two clips; return the options that train on it."""
    store = LocalStore(folder / "store")
    captioned = publish_captioned(store, folder, ["red", "blue"])
    inputs = dataset.DatasetInputs(captioned.clips, captioned.brief, captioned.keyframes, captioned.caption)
    published = dataset.run_stage(inputs, DatasetConfig(), store).ref
    config = folder / "config.yaml"
    settings = {"mixture": {"grid_frames": 4}, "train": {**TRAIN, **train}}
    config.write_text(json.dumps(settings))  # JSON is YAML
    source = ["--source", str(captioned.source)]
    return ["--config", str(config), "--input", f"dataset={published}", *source]


def test_an_empty_folder_of_videos(fake_engine: FakeEngine, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    config = write_config(tmp_path / "config.yaml", fake_engine)
    said = refused("curate", tmp_path, "--config", str(config), "--source", str(empty))
    assert said.startswith(f"there is no video in the folder ({empty}): ")
    assert fake_engine.calls() == []


def test_a_training_where_mlflow_is_not_there(silent: str, tmp_path: Path) -> None:
    said = refused("train", tmp_path, *trainable(tmp_path))
    assert said.startswith("the MLflow server does not answer")
    assert silent in said


def test_a_release_where_mlflow_is_not_there(silent: str, tmp_path: Path) -> None:
    (tmp_path / "questions").mkdir()
    asked = ["--questions", str(tmp_path / "questions"), "--question-clips", str(tmp_path)]
    models = ["--input", "trained=models:/chat/2", "--input", "base_model=models:/chat@champion"]
    said = refused("release", tmp_path, *asked, *models)
    assert said.startswith("the MLflow server does not answer")
    assert silent in said


@pytest.mark.slow
def test_a_base_model_with_missing_keys(tmp_path: Path) -> None:
    base = shutil.copytree(checkpoint_folder("builtin:nano-base"), tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    gone = sorted(name for name in weights if "projector" in name)[0]
    del weights[gone]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    said = refused("train", tmp_path, *trainable(tmp_path, base_model=str(base)))
    assert said.startswith("the base model's weights do not fit its architecture: 1 missing (")
    assert gone.rpartition(".")[2] in said
    assert f"({base}): " in said
