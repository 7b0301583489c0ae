from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

SUPERVISOR = [sys.executable, "-m", "share4video.captioning.supervisor"]
# Ignores SIGTERM, has a child of its own, and says both pids.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def gone(pid: int, within_s: float = 8.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SUPERVISOR, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def close(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


@pytest.mark.parametrize(
    "end", [close, lambda process: process.terminate(), lambda process: process.send_signal(signal.SIGINT)]
)
def test_the_commands_whole_group_ends_with_the_owner(end: Callable[[subprocess.Popen[str]], None]) -> None:
    process = start([sys.executable, "-c", STUBBORN])
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    started = time.monotonic()
    end(process)
    process.wait(10)
    assert all(gone(pid) for pid in pids)
    assert time.monotonic() - started < 6


def test_the_commands_own_end_is_passed_on() -> None:
    process = start([sys.executable, "-c", "raise SystemExit(7)"])
    assert process.wait(10) == 7


def test_an_owner_killed_outright_takes_the_command_along(tmp_path: Path) -> None:
    owner = f"""
import subprocess, sys, threading, time
def start():  # in a thread that ends, as pipelines do
    global process
    process = subprocess.Popen({[*SUPERVISOR, sys.executable, "-c", STUBBORN]!r}, stdin=subprocess.PIPE)
thread = threading.Thread(target=start)
thread.start()
thread.join()
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    time.sleep(0.5)
    assert all(psutil.pid_exists(pid) for pid in pids)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert all(gone(pid) for pid in pids)


def test_a_fork_that_keeps_the_pipe_does_not_keep_the_command() -> None:
    owner = f"""
import os, subprocess, sys, time
process = subprocess.Popen({[*SUPERVISOR, sys.executable, "-c", STUBBORN]!r}, stdin=subprocess.PIPE)
if os.fork() == 0:
    time.sleep(30)
    os._exit(0)
time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert all(gone(pid) for pid in pids)
    os.killpg(process.pid, signal.SIGKILL)  # the fork
