"""MLflow: real databases and real servers, up and down."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from share4video.errors import UserError
from share4video.training import tracking
from tests.registry_material import UNUSABLE, make_database, place_database


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> str:
    """The root of a store whose own database is ready."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    place_database(empty_database, tmp_path / "store")
    return str(tmp_path / "store")


PARAMS = {"train": {"lora_rank": 4, "seed": 0}}


def test_a_run_is_tracked_beside_the_store(root: str, tmp_path: Path) -> None:
    with tracking.training_run(root, key="abc", params=PARAMS, tags={"lineage": "m"}) as run:
        run.log_metrics({"loss": 2.0}, 1)
        run.log_metrics({"loss": 1.0}, 2)
    run_id = tracking.find_run(root, "abc")
    assert run_id is not None
    assert tracking.find_run(root, "other") is None
    found = tracking.connect(root).get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"train.lora_rank": "4", "train.seed": "0"}
    assert found.data.metrics["loss"] == 1.0
    assert found.data.tags["lineage"] == "m"
    assert found.data.tags[tracking.KEY_TAG] == "abc"
    assert found.info.artifact_uri.startswith((tmp_path / "store" / "mlflow").as_uri())
    assert not (tmp_path / "mlruns").exists()


def test_an_attempt_that_failed_is_gone_on_with_and_one_that_finished_is_not(root: str) -> None:
    def attempt(fail: bool = False) -> str | None:
        with tracking.training_run(root, key="abc", params=PARAMS, tags={}) as run:
            run.log_metrics({"loss": 1.0}, 1)
            if fail:
                raise KeyboardInterrupt
        return tracking.find_run(root, "abc")

    with pytest.raises(KeyboardInterrupt):
        attempt(fail=True)
    failed = tracking.find_run(root, "abc")
    assert attempt() == failed
    assert attempt() != failed


def test_a_run_that_is_named_is_respected(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = tracking.connect(root)
    with mlflow.start_run() as outer:
        named = outer.info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", named)
    with tracking.training_run(root, key="abc", params=PARAMS, tags={}):
        pass
    assert tracking.find_run(root, "abc") == named
    monkeypatch.setenv("MLFLOW_RUN_ID", named)  # MLflow takes it away when a run ends
    with (
        pytest.raises(UserError, match="MLFLOW_RUN_ID"),
        tracking.training_run(root, key="abc", params={"train": {"seed": 1}}, tags={}),
    ):
        pass


def test_the_environment_names_the_database_and_the_experiment(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path
) -> None:
    place_database(empty_database, tmp_path / "named")
    uri = f"sqlite:///{tmp_path / 'named' / 'mlflow' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert tracking.configure(root) == uri
    with tracking.training_run(root, key="abc", params=PARAMS, tags={}):
        pass
    mlflow = tracking.connect(root)
    assert mlflow.get_experiment_by_name("mine") is not None
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking.find_run(root, "abc") is None


def test_a_remote_store_has_its_database_in_the_work_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("SHARE4VIDEO_WORK", str(tmp_path / "work"))
    expected = f"sqlite:///{tmp_path / 'work' / 'mlflow' / 'mlflow.db'}"
    assert tracking.configure("s3://bucket/prefix") == tracking.configure(None) == expected


@contextmanager
def _server(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_is_down_is_said_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    with _server(200) as address:
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    started = time.monotonic()
    with pytest.raises(UserError, match="does not answer"):
        tracking.configure(None)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("address", UNUSABLE)
def test_an_address_mlflow_cannot_use_is_one_sentence(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(UserError, match="MLflow cannot be used") as caught:
        tracking.find_run(None, "abc")
    assert "secret" not in caught.value.sentence()
    with (
        pytest.raises(UserError, match="MLflow cannot be used"),
        tracking.training_run(None, key="abc", params=PARAMS, tags={}),
    ):
        pass


def test_a_damaged_database_is_one_sentence(root: str) -> None:
    database = Path(root) / "mlflow" / "mlflow.db"
    database.write_bytes(b"no database " * 1000)
    with pytest.raises(UserError, match="file is not a database"):
        tracking.find_run(root, "abc")


def test_metrics_may_have_any_name(root: str) -> None:
    with tracking.training_run(root, key="abc", params=PARAMS, tags={}) as run:
        run.log_metrics({"accuracy of order (1)": 0.5}, 1)
    run_id = tracking.find_run(root, "abc")
    assert tracking.connect(root).get_run(run_id).data.metrics["accuracy of order _1_"] == 0.5


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_server_that_refuses_is_the_users_error(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with _server(status) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(UserError, match=f"answers {status}"):
            tracking.configure(None)


def test_what_a_server_does_not_take_is_sent_later() -> None:
    from mlflow.exceptions import MlflowException

    class Flaky:
        def __init__(self) -> None:
            self.up, self.taken = False, []  # type: tuple[bool, list[tuple[dict[str, float], int]]]

        def log_metrics(self, metrics: dict[str, float], step: int) -> None:
            if not self.up:
                raise MlflowException("no route")
            self.taken.append((metrics, step))

        def get_tracking_uri(self) -> str:
            return "http://tracking"

    server = Flaky()
    run = tracking.TrainingRun(server)
    run.log_metrics({"loss": 3.0}, 1)
    with pytest.raises(UserError, match="took no metrics"):
        run.close()
    server.up = True
    run.log_metrics({"loss": 2.0}, 2)
    run.close()
    assert server.taken == [({"loss": 3.0}, 1), ({"loss": 2.0}, 2)]
