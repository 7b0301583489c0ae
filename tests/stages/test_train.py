"""The training stage: from a published mixture to a published model, also through a kill."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from share4video.config import DatasetConfig, MixtureConfig, TrainConfig
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.model_registry import fetch_checkpoint
from share4video.models.llava_next.processor import load_processor
from share4video.stages import dataset, mixture, train
from share4video.stages.train import TrainInputs
from share4video.store import LocalStore, Store
from share4video.training import tracking
from share4video.training.checkpoint import TrainingStates
from share4video.training.samples import Sample, load_samples, tokenize
from tests.registry_material import make_database, place_database
from tests.stages.captioned import publish_captioned

CONFIG = TrainConfig(
    lora_rank=4,
    lora_alpha=8,
    lr_language=5e-3,
    batch_size=2,
    micro_batch_size=2,
    pack_samples=4,
    max_steps=6,
    save_every_steps=2,
    log_every_steps=1,
    precision="fp32",
    save_precision="fp16",
    activation_checkpointing=False,
)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from share4video.synthetic.nano import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("base") / "model", "chat", seed=1)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageRef]:
    """The root of a store with a published mixture and an MLflow database, to be copied."""
    folder = tmp_path_factory.mktemp("prepared")
    store = LocalStore(folder / "store")
    captioned = publish_captioned(store, folder, ["red", "green", "blue"])
    inputs = dataset.DatasetInputs(captioned.clips, captioned.brief, captioned.keyframes, captioned.caption)
    published = dataset.run_stage(inputs, DatasetConfig(), store).ref
    sources = mixture.MixtureInputs(published, str(captioned.source))
    samples = mixture.run_stage(sources, MixtureConfig(question_writer="synthetic"), store).ref
    place_database(make_database(folder), store.root)
    return store.root, samples


@pytest.fixture
def trainable(
    prepared: tuple[Path, StageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[LocalStore, StageRef]:
    """A store of this test's own that holds the mixture."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SHARE4VIDEO_WORK", str(tmp_path / "work"))
    root, samples = prepared
    shutil.copytree(root, tmp_path / "store")
    return LocalStore(tmp_path / "store"), samples


def test_a_mixture_becomes_a_model(
    trainable: tuple[LocalStore, StageRef], base: Path, tmp_path: Path
) -> None:
    store, samples = trainable
    rows = read_table(store, samples, "sft").num_rows
    result = train.run_stage(TrainInputs(samples, str(base)), CONFIG, store)
    assert (result.rows_in, result.rows_out, result.rejects) == (rows, rows, {})
    assert result.metrics["steps"] == 6
    assert result.metrics["loss_last"] < result.metrics["loss_first"]

    folder = fetch_checkpoint(store, result.ref)
    from transformers import LlavaNextForConditionalGeneration

    _, report = LlavaNextForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    assert {"chat_template.jinja", "processor_config.json", "tokenizer.json"} <= {
        path.name for path in folder.iterdir()
    }

    run_id = tracking.find_run(str(store.root), result.ref.key)
    assert run_id is not None
    run = tracking.connect(str(store.root)).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.lora_rank"] == "4"
    assert run.data.tags[tracking.DATASET_TAG] == samples.content_hash
    assert run.data.tags[tracking.CHECKPOINT_TAG] == str(folder)
    assert run.data.metrics["loss_last"] == result.metrics["loss_last"]
    history = tracking.connect(str(store.root)).MlflowClient().get_metric_history(run_id, "loss")
    assert [point.step for point in history] == [1, 2, 3, 4, 5, 6]

    manifest = store.get(f"{result.ref.prefix}/manifest.json").decode()
    assert str(tmp_path) not in manifest
    assert run_id not in manifest
    assert not list(store.list("training-states"))
    assert not any((tmp_path / "work" / "train").iterdir())

    again = train.run_stage(TrainInputs(samples, str(base)), CONFIG, store)
    assert again.unchanged
    assert (again.ref, again.metrics) == (result.ref, result.metrics)
    tuned_again = train.run_stage(
        TrainInputs(samples, str(result.ref)), CONFIG.model_copy(update={"max_steps": 2}), store
    )
    assert tuned_again.ref != result.ref


def test_a_run_killed_before_it_cleared_its_states_is_cleaned_up_after(
    trainable: tuple[LocalStore, StageRef], base: Path, tmp_path: Path
) -> None:
    store, samples = trainable
    config = CONFIG.model_copy(update={"max_steps": 1})
    first = train.run_stage(TrainInputs(samples, str(base)), config, store)
    state = tmp_path / "state"
    state.mkdir()
    (state / "weights").write_bytes(b"of step 1")
    TrainingStates(store, first.ref.key).push(state, 1)  # what is there until a run clears it
    assert train.run_stage(TrainInputs(samples, str(base)), config, store).unchanged
    assert not list(store.list("training-states"))


def test_files_of_an_earlier_process_with_this_id_do_not_matter(
    trainable: tuple[LocalStore, StageRef], base: Path, tmp_path: Path
) -> None:
    store, samples = trainable
    shutil.copytree(store.root, tmp_path / "elsewhere")
    config = CONFIG.model_copy(update={"max_steps": 1})
    clean = train.run_stage(TrainInputs(samples, str(base)), config, LocalStore(tmp_path / "elsewhere"))
    left = tmp_path / "work" / "train" / f"{socket.gethostname()}@{os.getpid()}@{clean.ref.key}"
    (left / "checkpoint").mkdir(parents=True)
    (left / "checkpoint" / "notes.txt").write_text("of another run")
    assert train.run_stage(TrainInputs(samples, str(base)), config, store).ref == clean.ref


KILLED = """
import os, signal, sys
from share4video.config import TrainConfig
from share4video.dataset.manifest import StageRef
from share4video.stages import train
from share4video.store import Store
root, mixture, base, config = sys.argv[1:]
def progress(label, done, total):
    if (label, done) == ("steps", 5):
        os.kill(os.getpid(), signal.SIGKILL)
train.run_stage(
    train.TrainInputs(StageRef.parse(mixture), base),
    TrainConfig.model_validate_json(config),
    Store.open(root),
    progress=progress,
)
"""


def _run_until_killed(store: LocalStore, samples: StageRef, base: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(store.root), str(samples), str(base)]
    command.append(CONFIG.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=170, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]


def _manifest(store: Store, ref: StageRef) -> bytes:
    return store.get(f"{ref.prefix}/manifest.json")


def test_a_killed_training_goes_on_and_publishes_the_same_bytes(
    trainable: tuple[LocalStore, StageRef], base: Path, tmp_path: Path
) -> None:
    store, samples = trainable
    shutil.copytree(store.root, tmp_path / "elsewhere")
    _run_until_killed(store, samples, base)
    assert not any(key.endswith("/manifest.json") for key in store.list("train"))
    assert list(store.list("training-states"))

    steps: list[int] = []

    def progress(label: str, done: int, total: int) -> None:
        if label == "steps":
            steps.append(done)

    resumed = train.run_stage(TrainInputs(samples, str(base)), CONFIG, store, progress=progress)
    assert steps == [5, 6]
    runs = tracking.connect(str(store.root)).search_runs(output_format="list")
    assert [run.info.status for run in runs] == ["FINISHED"]

    elsewhere = LocalStore(tmp_path / "elsewhere")
    undisturbed = train.run_stage(TrainInputs(samples, str(base)), CONFIG, elsewhere)
    assert resumed.ref == undisturbed.ref
    assert _manifest(store, resumed.ref) == _manifest(elsewhere, undisturbed.ref)


def test_a_training_that_is_asked_to_stop_saves_and_exits_as_told(
    trainable: tuple[LocalStore, StageRef], base: Path
) -> None:
    store, samples = trainable

    def stop(label: str, done: int, total: int) -> None:
        if (label, done) == ("steps", 5):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stopped:
        train.run_stage(TrainInputs(samples, str(base)), CONFIG, store, progress=stop)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert any("step-00000005/manifest.json" in key for key in store.list("training-states"))
    assert train.run_stage(TrainInputs(samples, str(base)), CONFIG, store).metrics["steps"] == 6


def test_samples_that_do_not_fit_are_rejects(
    trainable: tuple[LocalStore, StageRef], base: Path, tmp_path: Path
) -> None:
    store, samples = trainable
    found = load_samples(store, samples, tmp_path / "samples")
    tokens, _ = tokenize(load_processor(base), [s for s in found if isinstance(s, Sample)], 4096)
    bound = sorted(sample.length for sample in tokens)[len(tokens) // 2]
    config = CONFIG.model_copy(update={"max_length": bound, "max_steps": 1})
    result = train.run_stage(TrainInputs(samples, str(base)), config, store)
    too_long = sum(sample.length > bound for sample in tokens)
    assert (result.rows_in, result.rejects) == (len(found), {"too_long": too_long})
    for row in read_table(store, result.ref, "rejects").to_pylist():
        assert row["measured"] > row["bound"] == bound


def test_wrong_inputs_are_said_and_leave_nothing(
    trainable: tuple[LocalStore, StageRef], base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, samples = trainable
    with pytest.raises(UserError, match="no such model folder"):
        train.run_stage(TrainInputs(samples, str(tmp_path / "none")), CONFIG, store)
    missing = StageRef("mixture", "0" * 20, "0" * 64)
    with pytest.raises(UserError, match="mixture stage"):
        train.run_stage(TrainInputs(missing, str(base)), CONFIG, store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="does not answer"):
        train.run_stage(TrainInputs(samples, str(base)), CONFIG, store)
    assert not [key for key in store.list("train") if key.endswith(".json")]


def test_the_output_does_not_depend_on_where_the_base_lies(
    trainable: tuple[LocalStore, StageRef], base: Path, tmp_path: Path
) -> None:
    store, samples = trainable
    moved = tmp_path / "moved"
    shutil.copytree(base, moved)
    config = CONFIG.model_copy(update={"max_steps": 1})
    first = train.run_stage(TrainInputs(samples, str(base)), config, store)
    assert train.run_stage(TrainInputs(samples, str(moved)), config, store).unchanged
    by_config = train.run_stage(
        TrainInputs(samples), config.model_copy(update={"base_model": str(moved)}), store
    )
    assert by_config.ref == first.ref
    assert load_manifest(store, first.ref).config["base_model"] == ""
