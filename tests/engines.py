"""Engines any test may ask for: a counting fake in its own process, and the real model server."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from share4video.captioning.client import Endpoint
from share4video.captioning.engine import ENDPOINTS_VARIABLE, resolve, shared_server
from share4video.captioning.model_server import SERVER_VARIABLE, ModelServer
from share4video.captioning.roles import KeyFrame
from share4video.config import EngineSpec
from share4video.work import WORK_VARIABLE
from tests.serving.upstream_host import UpstreamHost, upstream_host


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the first test that wants the model server the time its start takes on busy cores."""
    for item in items:
        if "model_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(600))


class FakeEngine:
    """The fake server as a test sees it."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._http = httpx.Client(base_url=base_url.removesuffix("/v1"), trust_env=False)

    def settings(self, **settings: Any) -> None:
        """Tell the server how to behave, and forget the calls so far."""
        self._http.post("/settings", json=settings).raise_for_status()

    def calls(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._seen()["calls"]
        return found

    def most_in_flight(self) -> int:
        return int(self._seen()["most_in_flight"])

    def _seen(self) -> dict[str, Any]:
        seen: dict[str, Any] = self._http.get("/calls").json()
        return seen

    def spec(self, **fields: Any) -> EngineSpec:
        given: dict[str, Any] = {"model": "fake", "revision": "1", "request_timeout_s": 10.0, **fields}
        return EngineSpec(url=self.base_url, **given)

    def endpoint(self, **fields: Any) -> Endpoint:
        return Endpoint(self.base_url, "fake", resolve(self.spec(**fields)))


@contextmanager
def running_fake_engine() -> Iterator[FakeEngine]:
    """Run a fake engine in a process of its own, on a port of its own."""
    script = Path(__file__).with_name("fake_engine.py")
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield FakeEngine(f"http://127.0.0.1:{int(process.stdout.readline())}/v1")
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


@pytest.fixture(scope="session")
def fake_engine_process() -> Iterator[FakeEngine]:
    with running_fake_engine() as engine:
        yield engine


@pytest.fixture
def fake_engine(fake_engine_process: FakeEngine) -> FakeEngine:
    fake_engine_process.settings()
    return fake_engine_process


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random-weight checkpoints of the nano models' architecture, by kind."""
    from share4video.synthetic.nano import write_checkpoint

    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: write_checkpoint(root / kind, kind, seed=1) for kind in ("captioner", "summarizer")}


@pytest.fixture(scope="session")
def model_server_process(
    checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ModelServer, dict[str, str]]]:
    """A real ``transformers serve``, and the environment in which `connect` finds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(WORK_VARIABLE, str(tmp_path_factory.mktemp("work")))
        for name in (ENDPOINTS_VARIABLE, SERVER_VARIABLE):
            patch.delenv(name, raising=False)
        with ExitStack() as stack:
            specs = [EngineSpec(model_path=str(path)) for path in checkpoints.values()]
            server = stack.enter_context(shared_server(specs))
            environment = {name: os.environ.pop(name) for name in (ENDPOINTS_VARIABLE, SERVER_VARIABLE)}
            yield server, environment


@pytest.fixture
def model_server(
    model_server_process: tuple[ModelServer, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> ModelServer:
    """A real ``transformers serve`` with the models of `checkpoints`; `connect` finds it."""
    server, environment = model_server_process
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def work_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder of the test's own."""
    monkeypatch.setenv(WORK_VARIABLE, str(tmp_path / "work"))
    return tmp_path / "work"


def picture(colour: str, size: tuple[int, int] = (64, 48)) -> bytes:
    """Return a JPEG file of one colour."""
    sink = io.BytesIO()
    Image.new("RGB", size, colour).save(sink, "JPEG")
    return sink.getvalue()


def frames(count: int, step_s: float = 2.0) -> list[KeyFrame]:
    """Return key frames that all differ, at 0, ``step_s``, ..."""
    return [KeyFrame(n + 1, n * step_s, picture(f"rgb({9 * n % 255}, 0, {n})")) for n in range(count)]


@pytest.fixture(scope="session")
def running_upstream() -> Iterator[UpstreamHost]:
    with upstream_host() as host:
        yield host


@pytest.fixture
def upstream(running_upstream: UpstreamHost) -> UpstreamHost:
    """A model server that takes pictures alone, as vLLM does for a LLaVA-NeXT."""
    running_upstream.reset()
    return running_upstream
