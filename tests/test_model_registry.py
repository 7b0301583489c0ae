"""The model registry on real MLflow: a SQLite file, and one real server that goes down."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from share4video.cli.main import app
from share4video.config import TrainConfig
from share4video.errors import UserError
from share4video.model_registry import ModelRegistry, fetch_checkpoint, resolve, store_root
from share4video.store import LocalStore, Store
from share4video.training import tracking
from tests.registry_material import (
    UNUSABLE,
    forget_mlflow,
    kill_server,
    make_database,
    mlflow_server,
    place_database,
    publish_checkpoint,
    publish_evaluation,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_mlflow(monkeypatch)
    monkeypatch.setenv("SHARE4VIDEO_WORK", str(tmp_path / "work"))
    monkeypatch.delenv("SHARE4VIDEO_STORE", raising=False)


@pytest.fixture
def registry(store: LocalStore, template: Path) -> ModelRegistry:
    place_database(template, store.root)
    return ModelRegistry("chat", tracking.configure(str(store.root)))


def test_an_unknown_model_has_no_champion(registry: ModelRegistry) -> None:
    assert registry.champion() is None
    assert registry.version(1) is None


def test_a_version_names_its_checkpoint(registry: ModelRegistry, store: LocalStore) -> None:
    checkpoint = publish_checkpoint(store, "one")
    model = registry.register(store, checkpoint)
    assert (model.uri, model.checkpoint, model.store) == ("models:/chat/1", checkpoint, str(store.root))
    assert model.tags["content_hash"] == checkpoint.content_hash
    assert model.release is None
    assert model.decision is None
    assert (model.folder() / "model.safetensors").read_text() == "one"
    assert registry.version(1) == model
    assert registry.champion() is None


def test_the_same_checkpoint_is_one_version(registry: ModelRegistry, store: LocalStore) -> None:
    first = registry.register(store, publish_checkpoint(store, "one"))
    second = registry.register(store, publish_checkpoint(store, "two"))
    again = registry.register(store, publish_checkpoint(store, "one"))
    assert (first.version, second.version, again.version) == (1, 2, 1)


def test_the_same_weights_under_another_key_stay_where_they_were(
    registry: ModelRegistry, store: LocalStore
) -> None:
    first = publish_checkpoint(store, "one")
    again = publish_checkpoint(store, "one", TrainConfig(log_every_steps=7))
    assert (again.content_hash, again.key == first.key) == (first.content_hash, False)
    registry.register(store, first)
    assert registry.register(store, again).checkpoint == first
    store.delete(f"{first.prefix}/manifest.json")
    model = registry.register(store, again)
    assert (model.version, model.checkpoint) == (1, again)


def test_a_moved_store_is_found_again(registry: ModelRegistry, store: LocalStore, tmp_path: Path) -> None:
    registry.register(store, publish_checkpoint(store, "one"))
    moved = LocalStore(tmp_path / "moved")
    model = registry.register(moved, publish_checkpoint(moved, "one"))
    assert (model.version, model.store) == (1, str(moved.root))


def test_the_alias_moves(registry: ModelRegistry, store: LocalStore) -> None:
    for number, weights in enumerate(("one", "two"), start=1):
        model = registry.register(store, publish_checkpoint(store, weights))
        registry.promote(model)
        champion = registry.champion()
        assert champion is not None
        assert champion.version == number


def test_evidence_is_kept_and_replaced(registry: ModelRegistry, store: LocalStore) -> None:
    model = registry.register(store, publish_checkpoint(store, "one"))
    evaluation = publish_evaluation(store, model.checkpoint, {"order": (1, 2)})
    model = registry.record(model, {"metric.accuracy": "0.5", "evaluation.abc": str(evaluation)}, "First.")
    model = registry.record(model, {"metric.accuracy": "0.6"})
    assert model.tags["metric.accuracy"] == "0.6"
    assert model.evaluation("abc") == evaluation
    assert model.evaluation("other") is None


def test_evidence_may_have_any_name(registry: ModelRegistry, store: LocalStore) -> None:
    model = registry.register(store, publish_checkpoint(store, "one"))
    long = "x" * 300
    evidence = {"metric.order (1)": "0.5", "metric.größe[a:b]": "0.6", long: "0.7"}
    for _ in range(2):
        model = registry.record(model, evidence)
    assert model.tags["metric.order _1_"] == "0.5"
    assert model.tags["metric.größe_a_b_"] == "0.6"
    assert [value for name, value in model.tags.items() if long.startswith(name)] == ["0.7"]


def test_a_version_is_linked_to_the_run_that_trained_it(registry: ModelRegistry, store: LocalStore) -> None:
    from mlflow import MlflowClient

    checkpoint = publish_checkpoint(store, "one")
    client = MlflowClient(tracking_uri=registry.tracking_uri)
    run = client.create_run("0", tags={tracking.KEY_TAG: checkpoint.key})
    registry.register(store, checkpoint)
    assert client.get_model_version("chat", "1").run_id == run.info.run_id


@pytest.mark.parametrize("name", ["", "a/b", "it's", "a@b"])
def test_a_name_mlflow_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="not a name for a model"):
        ModelRegistry(name, "sqlite://")


def test_a_foreign_version_is_named(registry: ModelRegistry) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=registry.tracking_uri)
    client.create_registered_model("chat")
    client.create_model_version("chat", "s3://somewhere/else")
    client.set_registered_model_alias("chat", "champion", "1")
    with pytest.raises(UserError, match="not registered by share4video"):
        registry.champion()


# ------------------------------------------------------------------ addresses


def test_addresses_resolve(
    registry: ModelRegistry, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = registry.register(store, publish_checkpoint(store, "one"))
    registry.promote(model)
    assert resolve("models:/chat@champion", store) == resolve("models:/chat/1", store) == model
    monkeypatch.setenv("SHARE4VIDEO_STORE", str(store.root))
    assert resolve("models:/chat@champion") == model
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.tracking_uri)
    monkeypatch.delenv("SHARE4VIDEO_STORE")
    assert resolve("models:/chat@champion") == model


@pytest.mark.parametrize(
    "uri", ["models:/chat@best", "models:/chat/7", f"models:/chat/{10**20}", "models:/other@champion"]
)
def test_what_the_registry_does_not_know_is_named(
    registry: ModelRegistry, store: LocalStore, uri: str
) -> None:
    registry.register(store, publish_checkpoint(store, "one"))
    with pytest.raises(UserError, match="knows no such model") as caught:
        resolve(uri, store)
    assert caught.value.where.startswith(uri)


@pytest.mark.parametrize("uri", ["chat@champion", "models:/chat", "models:/chat@", "models:/a/b@champion"])
def test_another_form_is_refused(store: LocalStore, uri: str) -> None:
    with pytest.raises(UserError, match="not the address of a registered model"):
        resolve(uri, store)


def test_no_registry_is_made_by_looking(store: LocalStore) -> None:
    with pytest.raises(UserError, match="no model is registered yet"):
        resolve("models:/chat@champion", store)
    assert not (store.root / "mlflow" / "mlflow.db").exists()


# ------------------------------------------------------------------ what MLflow cannot use


@pytest.mark.parametrize("address", UNUSABLE)
def test_an_address_mlflow_cannot_use_is_one_sentence(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(UserError, match="MLflow cannot be used") as caught:
        resolve("models:/chat@champion", store)
    assert "secret" not in caught.value.sentence()
    registry = ModelRegistry("chat", tracking.configure(str(store.root)))
    with pytest.raises(UserError, match="MLflow cannot be used"):
        registry.register(store, publish_checkpoint(store, "one"))


def test_a_damaged_database_is_one_sentence(store: LocalStore) -> None:
    database = store.root / "mlflow" / "mlflow.db"
    database.parent.mkdir()
    database.write_bytes(b"no database " * 1000)
    for uri in ("models:/chat@champion", "models:/chat/1"):
        with pytest.raises(UserError, match="file is not a database") as caught:
            resolve(uri, store)
        assert caught.value.where == f"sqlite:///{database}"


def test_the_front_door_says_it_and_exits_with_2(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "foo://bar")
    asked = ["--questions", "q", "--question-clips", "c", "--store", str(store.root)]
    done = CliRunner().invoke(app, ["evaluate", "models:/chat@champion", *asked])
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("share4video: MLflow cannot be used: ")
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------ checkpoints


def test_a_checkpoint_is_fetched_once_and_checked(any_store: Store, tmp_path: Path) -> None:
    ref = publish_checkpoint(any_store, "one")
    folder = fetch_checkpoint(any_store, ref)
    assert (folder / "model.safetensors").read_text() == "one"
    assert fetch_checkpoint(any_store, ref) == folder
    assert Store.open(store_root(any_store)).get(f"{ref.prefix}/manifest.json")
    any_store.put(f"{ref.prefix}/checkpoint/model.safetensors", b"bad")
    if isinstance(any_store, LocalStore):
        assert folder.parent == any_store.root / ref.prefix
        with pytest.raises(UserError, match="damaged"):
            fetch_checkpoint(any_store, ref)
    else:
        assert folder.is_relative_to(tmp_path / "work")
        assert fetch_checkpoint(any_store, ref) == folder  # the copy here is whole


def test_an_output_without_a_checkpoint_is_named(store: LocalStore) -> None:
    evaluation = publish_evaluation(store, "base", {"order": (1, 2)})
    with pytest.raises(UserError, match="holds no checkpoint"):
        fetch_checkpoint(store, evaluation)


# ------------------------------------------------------------------ a server


@pytest.fixture
def server(template: Path, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with mlflow_server(template, tmp_path) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(450)
def test_a_server_takes_a_local_store_and_is_named_when_it_goes_down(
    server: tuple[str, subprocess.Popen[bytes]], store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, process = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    registry = ModelRegistry("chat", tracking.configure(str(store.root)))
    model = registry.register(store, publish_checkpoint(store, "one"))
    registry.promote(registry.record(model, {"metric.accuracy": "0.5"}, "First."))
    found = resolve("models:/chat@champion")
    assert (found.folder() / "model.safetensors").read_text() == "one"
    assert registry.register(store, model.checkpoint).version == model.version
    assert not (store.root / "mlflow").exists()

    kill_server(process)
    started = time.monotonic()
    with pytest.raises(UserError, match="the MLflow server does not answer") as caught:
        registry.champion()
    assert caught.value.where == address
    with pytest.raises(UserError, match="the MLflow server does not answer"):
        resolve("models:/chat@champion")
    assert time.monotonic() - started < 30
