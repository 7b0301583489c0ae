"""Running with KFP's local runner: results, mistakes, bugs, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.local import PipelineFailed, run_local
from share4video.errors import UserError
from share4video.events import StageEvent
from tests.pipelines.material import until

ROOT = Path(__file__).parents[2]
OWNER = """
import sys
from pathlib import Path
from pipelines.local import run_local
pipeline, store, folder = sys.argv[1:]
run_local(Path(pipeline), {"mode": "hang", "store": store}, Path(folder))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    subprocess.run([sys.executable, str(Path(__file__).with_name("tiny.py")), str(folder)], check=True)
    return folder / "tiny.yaml"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def test_a_run_delivers_events_and_outputs(tiny: Path, shelf: Path, tmp_path: Path) -> None:
    events: list[StageEvent] = []
    run = run_local(tiny, {"mode": "well", "store": str(shelf)}, tmp_path / "run", on_event=events.append)
    assert run.refs == {"work": "work/k@h"}
    assert json.loads((run.folder / "refs.json").read_text()) == run.refs
    closing = run.finished["work"]
    assert (closing.rows_in, closing.rows_out, closing.rejects) == (3, 2, {"dull": 1})
    assert closing.metrics == {"finite": 1.5}  # a number that is not finite would fail KFP's own artifact
    assert {event.shard for event in events if event.kind == "progress"} == {0, 1}
    assert "SUCCESS" in (run.folder / "run.log").read_text()
    assert not run.unchanged


def test_a_users_mistake_in_a_task_is_that_mistake(tiny: Path, shelf: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=r"the moon is down \(shard [01]\): wait for the night\."):
        run_local(tiny, {"mode": "mistake", "store": str(shelf)}, tmp_path / "run")
    assert time.monotonic() - started < 150  # the task's retries, minutes apart, are for clusters


@pytest.mark.parametrize(
    ("mode", "said"),
    [("bug", r"ephemeral_component.*\nZeroDivisionError: no such luck$"), ("killed", "run.log")],
)
def test_any_other_failure_names_the_log(
    mode: str, said: str, tiny: Path, shelf: Path, tmp_path: Path
) -> None:
    with pytest.raises(PipelineFailed) as failure:
        run_local(tiny, {"mode": mode, "store": str(shelf)}, tmp_path / "run")
    assert re.search(said, str(failure.value), re.DOTALL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_tasks_end_with_their_owner(number: int, tiny: Path, shelf: Path, tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tiny), str(shelf), str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    pids = [shelf / "pid-0", shelf / "pid-1"]
    until(lambda: all(pid.is_file() and pid.read_text() for pid in pids), 120)
    family = [psutil.Process(owner.pid), *psutil.Process(owner.pid).children(recursive=True)]
    assert {int(pid.read_text()) for pid in pids} <= {process.pid for process in family}
    owner.send_signal(number)
    owner.wait(30)
    until(lambda: not any(alive(process) for process in family), 30)


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
