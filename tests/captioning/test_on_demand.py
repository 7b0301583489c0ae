from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from share4video.captioning.client import ChatRequest, Completion
from share4video.captioning.engine import ENDPOINTS_VARIABLE, answer_all, connect
from share4video.captioning.model_server import (
    FAILED_FILE,
    ON_DEMAND_FILE,
    SERVER_VARIABLE,
    running_server,
)
from share4video.captioning.on_demand import _tell, server_on_demand
from share4video.config import EngineSpec
from share4video.errors import UserError

SERVER = "share4video.models.transformers_server"
CHILD = """
import sys
from share4video.captioning.engine import connect
from share4video.config import EngineSpec
with connect(EngineSpec(model_path=sys.argv[1])) as endpoint:
    print(endpoint.base_url)
"""


@pytest.fixture(autouse=True)
def _alone(work_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ENDPOINTS_VARIABLE, SERVER_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_nobody_asks_and_nothing_starts(checkpoints: dict[str, Path], work_root: Path) -> None:
    with server_on_demand([EngineSpec(model_path=str(checkpoints["summarizer"]))]) as folder:
        assert os.environ[SERVER_VARIABLE] == str(folder)
    assert not folder.exists()
    assert SERVER_VARIABLE not in os.environ
    assert not (work_root / "logs").exists()


def test_the_first_to_ask_starts_the_server_for_all(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    spec = EngineSpec(model_path=str(checkpoints["summarizer"]))
    with server_on_demand([spec]):
        command = [sys.executable, "-c", CHILD, str(spec.model_path)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        with connect(spec) as endpoint:
            assert endpoint.base_url == said
        server = running_server()
        assert server is not None
        assert (server.base_url, server.replicas) == (said, ())


def test_two_servers_share_the_work_and_one_can_go_on_alone(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    spec = EngineSpec(model_path=str(checkpoints["summarizer"]), max_in_flight=2)
    asked = {str(n): partial(ChatRequest, [{"role": "user", "content": str(n)}], 4) for n in range(8)}
    with server_on_demand([spec]), connect(spec) as endpoint:
        assert len(endpoint.replicas) == 1
        both = answer_all(endpoint, asked)
        server = running_server()
        assert server is not None
        log = server.log.read_text()
        assert log.count("[Request received]") == len(asked)
        one, _ = _serving_processes(server.folder)
        one.kill()
        alone = answer_all(endpoint, asked)
        with connect(spec) as later:  # another process loads its model into what is left
            assert later.replicas == ()
            assert answer_all(later, asked) == alone
    assert alone == both
    assert all(isinstance(answer, Completion) for answer in both.values())


def _serving_processes(folder: Path) -> list[psutil.Process]:
    family = psutil.Process().children(recursive=True)
    servers = [process for process in family if SERVER in process.cmdline()[:4]]
    return [process for process in servers if Path(process.cwd()) == folder / "models"]


def test_a_server_that_does_not_start_is_everybodys_mistake(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EngineSpec(model_path=str(checkpoints["summarizer"]))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with server_on_demand([spec]):
        for _ in range(2):
            with pytest.raises(UserError, match="the model server did not start"), connect(spec):
                raise AssertionError


def test_a_folder_that_cannot_be_written_is_told_at_once(
    checkpoints: dict[str, Path], work_root: Path
) -> None:
    (work_root / "logs").mkdir(parents=True)
    (work_root / "logs" / "model-server-1.log").symlink_to("model-server-1.log")  # leads nowhere: OSError
    started = time.monotonic()
    spec = EngineSpec(model_path=str(checkpoints["summarizer"]))
    with server_on_demand([spec]):
        for _ in range(2):
            with pytest.raises(UserError, match=r"not start: .*levels.*model-server-1\.log"), connect(spec):
                raise AssertionError
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("told", [True, False])
def test_any_failure_ends_the_waiting(checkpoints: dict[str, Path], tmp_path: Path, told: bool) -> None:
    (tmp_path / ON_DEMAND_FILE).touch()
    if not told:
        (tmp_path / FAILED_FILE).mkdir()  # where there is no room for the sentence, either
    _tell(tmp_path, ZeroDivisionError("no such\nluck"))
    environment = {SERVER_VARIABLE: str(tmp_path)}
    if told:
        with pytest.raises(UserError, match="did not start: ZeroDivisionError no such luck"):
            running_server(environment)
    else:
        started = time.monotonic()
        assert running_server(environment) is None
        assert time.monotonic() - started < 10


def test_a_missing_model_is_told_before_anything_runs(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="nowhere"),
        server_on_demand([EngineSpec(model_path=str(tmp_path / "nowhere"))]),
    ):
        raise AssertionError
