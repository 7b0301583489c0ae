from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from share4video.captioning.engine import ENDPOINTS_VARIABLE, connect
from share4video.captioning.model_server import SERVER_VARIABLE, running_server
from share4video.captioning.on_demand import server_on_demand
from share4video.config import EngineSpec
from share4video.errors import UserError

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


def test_the_first_to_ask_starts_the_server_for_all(checkpoints: dict[str, Path]) -> None:
    spec = EngineSpec(model_path=str(checkpoints["summarizer"]))
    with server_on_demand([spec]):
        command = [sys.executable, "-c", CHILD, str(spec.model_path)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        with connect(spec) as endpoint:
            assert endpoint.base_url == said
        server = running_server()
        assert server is not None
        assert server.base_url == said


def test_a_server_that_does_not_start_is_everybodys_mistake(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EngineSpec(model_path=str(checkpoints["summarizer"]))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with server_on_demand([spec]):
        for _ in range(2):
            with pytest.raises(UserError, match="the model server did not start"), connect(spec):
                raise AssertionError


def test_a_missing_model_is_told_before_anything_runs(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="nowhere"),
        server_on_demand([EngineSpec(model_path=str(tmp_path / "nowhere"))]),
    ):
        raise AssertionError
