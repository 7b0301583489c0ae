"""Runs one command for as long as its owner lives: ``python -m share4video.captioning.supervisor COMMAND...``

The owner keeps the write end of the pipe that is this process's stdin. When the pipe closes, because the
owner closed it or died in any way (``kill -9`` included), the command's process group gets SIGTERM, three
seconds, and SIGKILL. The parent's pid is watched too, in case a fork of the owner keeps the pipe open.
``PR_SET_PDEATHSIG`` would not do: it fires when the *thread* that started the child ends.

The command inherits stdout and stderr; its own stdin is a pipe that closes should this process be killed.
Only the standard library is imported: this process stands beside every server and should cost nothing.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

POLL_S = 0.25
GRACE_S = 3.0


def supervise(command: Sequence[str]) -> int:
    """Run ``command`` until it ends or the owner goes. Returns its exit status, 0 where the owner went."""
    owner = os.getppid()
    child = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        while child.poll() is None:
            readable, _, _ = select.select([sys.stdin], [], [], POLL_S)
            if (readable and not os.read(sys.stdin.fileno(), 1)) or os.getppid() != owner:
                return 0
        return child.returncode
    finally:
        _end_group(child)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave the group behind
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)  # the group outlives its leader: also reaches what the leader left
        except ProcessLookupError:
            break
        deadline = time.monotonic() + GRACE_S
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1:]))
