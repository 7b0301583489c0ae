"""Published checkpoints and evaluations to register, an MLflow database that is ready at once, a server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from share4video.config import EvaluateConfig, TrainConfig
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import ShardSet
from share4video.evaluation.results import PROTOCOL, RESULTS, Answer, Results
from share4video.store import Store

# Addresses at which MLflow fails in one way each.
UNUSABLE = (
    "file:///nowhere/mlruns",
    "postgresql+nodriver://me:secret@127.0.0.1/mlflow",
    "postgresql://me:secret@127.0.0.1:port/mlflow",
    "foo://bar",
    "sqlite:mlflow.db",
)


def publish_checkpoint(store: Store, weights: str, config: TrainConfig | None = None) -> StageRef:
    """Publish what the train stage would; ``weights`` makes its content, the configuration its key."""
    output = ShardSet(store, "train", "1", inputs=[f"mixture of {weights}"], config=config or TrainConfig())
    output.attach("checkpoint/config.json", b"{}")
    output.attach("checkpoint/model.safetensors", weights.encode())
    output.commit(0, {}, {"rows_in": 0, "rows_out": 0})
    return output.publish(1).ref


def publish_evaluation(
    store: Store, model: StageRef | str, right: Mapping[str, tuple[int, int]], questions: str = "q"
) -> StageRef:
    """Publish an evaluation with so many right answers of so many, by task."""
    answers = tuple(
        Answer(
            question_id=f"{task}-{i:04d}",
            task=task,
            video=f"{task}-{i:04d}.mp4",
            group=None,
            options=2,
            text="(A)",
            letter="A",
            answer="A" if i < good else "B",
            right=i < good,
        )
        for task, (good, asked) in sorted(right.items())
        for i in range(asked)
    )
    results = Results(
        protocol=PROTOCOL,
        model=str(model),
        questions=questions,
        clips="c",
        frames=16,
        image=True,
        answers=answers,
    )
    output = ShardSet(
        store, "evaluate", "2", inputs=[questions], config=EvaluateConfig(), identity={"model": str(model)}
    )
    output.attach(RESULTS, results.model_dump_json().encode())
    output.commit(0, {}, {"rows_in": len(answers), "rows_out": len(answers)})
    return output.publish(1).ref


def make_database(folder: Path) -> Path:
    """Make an empty MLflow database; its schema takes seconds, so tests copy one."""
    from mlflow import MlflowClient

    file = folder / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_registered_models()
    return file


def forget_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every setting of MLflow out of the environment, for a test that sets its own."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def place_database(template: Path, store_root: Path) -> Path:
    """Put a copy of the database where a local store's registry is."""
    target = store_root / "mlflow" / "mlflow.db"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(template, target)
    return target


@contextmanager
def mlflow_server(template: Path, folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a real MLflow server on a free port; yields its address and its process, for `kill_server`."""
    database = place_database(template, folder / "server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{database}", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    address = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # half the memory
        )
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                if httpx.get(f"{address}/health", timeout=2).is_success:
                    break
            except httpx.HTTPError:
                pass
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield address, process
    finally:
        if process.poll() is None:
            kill_server(process)


def kill_server(process: subprocess.Popen[bytes]) -> None:
    """End a server and its workers at once, as a crash would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
