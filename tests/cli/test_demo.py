"""The demo as a person runs it: twice, and then the commands it says to try next."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from benchmarks.demo import summary
from share4video.model_registry import CHAMPION, store_root
from share4video.stages.chain import DEFAULT_MODEL_NAME
from share4video.store import LocalStore
from share4video.training import tracking
from share4video.work import WORK_VARIABLE

SMALL = ("--clips", "4", "--heldout", "8", "--set", "train.max_steps=2", "--set", "evaluate.limit=4")
PROGRAM = (sys.executable, "-c", "from share4video.cli.main import app; app()")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(WORK_VARIABLE, str(tmp_path / "work"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def share4video(*arguments: str, cwd: Path, **environment: str) -> str:
    """Run the command line to its end in ``cwd``; returns its standard output."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_runs_twice_and_its_next_commands_work(place: Path) -> None:
    shown = share4video("demo", *SMALL, cwd=place)
    table = summary(shown)
    reasons = [int(count) for count in re.findall(r"(\d+) [a-z ]+", table["rejected"])]
    assert int(table["clips in"]) == int(table["kept"]) + int(table["duplicates"]) + sum(reasons)
    assert {"caption F1, brief", "caption F1, sliding", "caption F1, summary"} <= {*table}
    assert "before tuning" in table["accuracy, temporal"]
    assert "is registered" in table["gate"]
    assert not [row for row in table if row.startswith("served")]  # two steps of training promote nothing
    report = place / "share4video-demo" / "report.html"
    assert "<html" in report.read_text()
    try_next(shown, place)

    make_champion(place / "share4video-demo" / "store")
    again = share4video("demo", *SMALL, cwd=place)
    assert "Nothing changed" in again and "Nothing changed" not in shown
    rows = summary(again)
    assert "stays champion" in rows.pop("gate")
    served = {row: rows.pop(row) for row in list(rows) if row.startswith("served")}
    assert rows.items() <= table.items()
    assert len(rows) == len(table) - 1
    assert {"served, colour", "served, direction"} <= {*served}
    assert all(
        "heldout-" in said and (said.endswith("   right") or "   wrong, it is (" in said)
        for said in served.values()
    )
    try_next(again, place)


def make_champion(store: Path) -> None:
    """Move the alias by hand, as one may in MLflow."""
    uri = tracking.configure(store_root(LocalStore(store)))
    MlflowClient(uri).set_registered_model_alias(DEFAULT_MODEL_NAME, CHAMPION, "1")


def try_next(shown: str, place: Path) -> None:
    """Run the commands the demo says to try next; of the slow ones, that they are understood is enough."""
    tried = re.findall(r"^  (\S.*)$", shown.partition("try next:\n")[2], re.MULTILINE)
    assert len(tried) == 3
    for command in tried:
        words = shlex.split(command)
        given = dict(word.split("=", 1) for word in words if word.startswith("SHARE4VIDEO_"))
        arguments = words[len(given) + 1 :]
        slow = arguments[0] in ("evaluate", "chat", "serve")
        assert share4video(*arguments, *(["--help"] if slow else []), cwd=place, **given)
