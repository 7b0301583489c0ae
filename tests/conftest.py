"""What every test may ask for: a local store, a store on a real S3 server, and the folder of test data."""

from __future__ import annotations

import gc
import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports numpy or torch: the workers share the cores, and nothing may ask the network.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from share4video.store import LocalStore, Store

pytest_plugins = ["tests.engines"]

S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start files with slow tests first, those that may take longest before all: none is alone at the end."""
    first: dict[Path, float] = {}
    for item in items:
        if item.get_closest_marker("slow"):
            limit = item.get_closest_marker("timeout")
            first[item.path] = max(first.get(item.path, 0.0), limit.args[0] if limit else 1.0)
    items.sort(key=lambda item: -first.get(item.path, 0.0))


@pytest.fixture(scope="module", autouse=True)
def _libraries_are_no_garbage() -> None:
    """Looking for garbage among a million objects of imported libraries took a sixth of a worker's time."""
    gc.freeze()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real clips and golden values; without one the test is skipped."""
    root = os.environ.get("SHARE4VIDEO_TEST_DATA")
    if not root:
        pytest.skip("SHARE4VIDEO_TEST_DATA is not set")
    return Path(root)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def local_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for local copies of remote files."""
    folder = tmp_path / "copies"
    monkeypatch.setenv("SHARE4VIDEO_CACHE", str(folder))
    monkeypatch.delenv("SHARE4VIDEO_CACHE_BYTES", raising=False)
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server of this test run; child processes reach it too."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Credentials of nobody, and no trace of the developer's own AWS set-up."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in S3_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def s3_root(s3_server: str, s3_environment: pytest.MonkeyPatch) -> str:
    """A prefix in a new bucket, with the environment that leads there: ``Store.open`` takes it."""
    import boto3

    s3_environment.setenv("AWS_ENDPOINT_URL", s3_server)
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/some/prefix"


@pytest.fixture
def s3_store(s3_root: str) -> Store:
    return Store.open(s3_root)


@pytest.fixture(params=["local", "s3"])
def any_store(request: pytest.FixtureRequest) -> Store:
    """A store of each kind in turn."""
    found: Store = request.getfixturevalue("store" if request.param == "local" else "s3_store")
    return found
