"""MLflow: real databases and real servers, up and down."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from share4video.errors import UserError
from share4video.training import tracking
from share4video.training.mlflow_address import hand_over_credentials, shown
from tests.registry_material import UNUSABLE, kill_server, make_database, mlflow_server, place_database


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


def test_a_run_that_is_named_may_be_in_any_experiment(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking.configure(root))
    named = client.create_run("0").info.run_id  # of the experiment "Default"
    monkeypatch.setenv("MLFLOW_RUN_ID", named)
    with tracking.training_run(root, key="abc", params=PARAMS, tags={}) as run:
        run.log_metrics({"loss": 1.0}, 1)
        run.set_tags({"by": "hand"})
    found = client.get_run(named)
    assert (found.info.experiment_id, found.info.status) == ("0", "FINISHED")
    assert (found.data.metrics["loss"], found.data.tags["by"]) == (1.0, "hand")
    assert found.data.tags[tracking.KEY_TAG] == "abc"
    assert client.get_experiment_by_name(tracking.EXPERIMENT) is None


@pytest.mark.parametrize("named", ["0" * 32, "no such run"])
def test_a_run_that_is_named_and_does_not_exist_is_one_sentence(
    root: str, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", named)
    with (
        pytest.raises(UserError, match=f"MLflow refused the run: .*{named}.*unset MLFLOW_RUN_ID") as caught,
        tracking.training_run(root, key="abc", params=PARAMS, tags={}),
    ):
        pass
    assert "\n" not in caught.value.sentence()


def test_a_run_whose_end_is_not_taken_does_not_hide_what_went_wrong(root: str) -> None:
    def attempt(error: Exception | None) -> None:
        with tracking.training_run(root, key="abc", params=PARAMS, tags={}):
            with sqlite3.connect(Path(root) / "mlflow" / "mlflow.db") as database:
                database.execute("ALTER TABLE runs RENAME TO gone")
            database.close()
            if error is not None:
                raise error

    for error, said in ((UserError("the loss is nan"), "the loss is nan"), (None, "did not end the run")):
        with pytest.raises(UserError, match=said):
            attempt(error)
        with sqlite3.connect(Path(root) / "mlflow" / "mlflow.db") as database:
            database.execute("ALTER TABLE gone RENAME TO runs")
        database.close()


def go_on_without_server(process: subprocess.Popen[bytes]) -> None:
    """Train while the server dies: no step waits long for it."""
    with tracking.training_run(None, key="second", params=PARAMS, tags={}) as run:
        run.log_metrics({"loss": 2.0}, 1)
        kill_server(process)
        for step in (2, 3):
            started = time.monotonic()
            run.log_metrics({"loss": 1.0}, step)
            assert time.monotonic() - started < 20


@pytest.mark.slow
@pytest.mark.timeout(450)
def test_a_server_that_dies_during_a_training_is_named_and_no_password_is_printed(
    empty_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # so that what is put there is taken away again
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    with mlflow_server(empty_database, tmp_path) as (address, process):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("//", "//me:secret@"))
        with tracking.training_run(None, key="first", params=PARAMS, tags={}) as run:
            run.log_metrics({"loss": 2.0}, 1)
        with pytest.raises(UserError, match="the MLflow server does not answer") as caught:
            go_on_without_server(process)
    assert caught.value.where == address
    assert "run the stage again" in caught.value.sentence()
    assert "MLFLOW_RUN_ID" not in caught.value.sentence()
    printed = "".join(capfd.readouterr())
    assert address in printed  # MLflow says where the run is
    assert "secret" not in printed + caught.value.sentence()


@pytest.mark.parametrize(
    ("address", "left"),
    [
        ("http://me:secret@host:5000/path", "http://host:5000/path"),
        ("https://me:se@cret@host", "https://host"),
        ("postgresql://me:se/cret@host/mlflow", "postgresql://host/mlflow"),
        ("API request to http://me:secret@host/a failed, write to me@host", None),
        ("http://host:5000/path", "http://host:5000/path"),
        ("sqlite:////data/me@work/mlflow.db", "sqlite:////data/me@work/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, left: str | None) -> None:
    assert shown(address) == (left or "API request to http://host/a failed, write to me@host")


def test_a_password_in_the_address_goes_to_mlflows_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "other")
    assert hand_over_credentials("http://host/me:x@y") == "http://host/me:x@y"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "other"
    assert hand_over_credentials("https://me:a%2Fb@host:1/p") == "https://host:1/p"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "me"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "a/b"


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


def test_two_stores_of_one_process_have_a_database_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking.connect(str(tmp_path / "one"))
    tracking.connect(str(tmp_path / "two"))
    assert (tmp_path / "one" / "mlflow" / "mlflow.db").is_file()
    assert (tmp_path / "two" / "mlflow" / "mlflow.db").is_file()
