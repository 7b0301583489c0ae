"""Where a run keeps what is its own and never published: journals, server logs, sockets, caches."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from share4video.errors import UserError

WORK_VARIABLE = "SHARE4VIDEO_WORK"


def work_folder(*parts: str) -> Path:
    """Return a folder below ``SHARE4VIDEO_WORK`` (default: the user's cache folder), made if it is missing.

    Raises:
        UserError: it cannot be made.
    """
    root = os.environ.get(WORK_VARIABLE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = (Path(root) if root else cache / "share4video").joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the work folder: {error.strerror}",
            where=str(folder),
            fix=f"set {WORK_VARIABLE} to a writable folder",
        ) from error
    return folder


@contextmanager
def process_folder(*parts: str) -> Iterator[Path]:
    """Yield an empty folder of this process below ``work_folder(*parts)``; it is removed at the end.

    Those that killed processes of this host left there are removed first.

    Raises:
        UserError: it cannot be made.
    """
    shared, here = work_folder(*parts), socket.gethostname()
    for left in shared.glob("*@*@*"):
        host, pid, _ = left.name.split("@", 2)
        if host == here and pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)  # another process may be sweeping, too
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{here}@{os.getpid()}@", dir=shared))
    except OSError as error:
        raise UserError(
            f"cannot write to the work folder: {error.strerror}",
            where=str(shared),
            fix=f"set {WORK_VARIABLE} to a writable folder",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
