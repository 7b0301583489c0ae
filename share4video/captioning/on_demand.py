"""A model server that starts when somebody first asks for it.

A run that finds everything published asks no model anything, and should not pay for a server. So the process
that owns the run only says that there could be one: it names a folder in the environment, and a thread of it
watches the folder for a file that `model_server.running_server` leaves there, in whatever process that is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from share4video.captioning.checkpoints import check_checkpoint, checkpoint_folder
from share4video.captioning.engine import environment_of
from share4video.captioning.model_server import (
    FAILED_FILE,
    ON_DEMAND_FILE,
    POLL_S,
    SERVER_VARIABLE,
    WANTED_FILE,
    serve_models,
)
from share4video.config import EngineSpec
from share4video.errors import UserError, write_user_error
from share4video.work import process_folder

_STOP_S = 10.0
_MOST_SERVERS = 2  # each holds torch: half a gigabyte


@contextmanager
def server_on_demand(specs: Sequence[EngineSpec]) -> Iterator[Path]:
    """Serve the local checkpoints among ``specs`` once `engine.connect` asks, here or in a child process.

    Yields:
        The server's folder; the environment names it inside the block.

    Raises:
        UserError: a checkpoint is missing or incomplete.
    """
    checkpoints = [checkpoint_folder(spec.model_path) for spec in specs if spec.model_path is not None]
    for checkpoint in checkpoints:
        check_checkpoint(checkpoint)
    with process_folder("servers") as folder:
        (folder / ON_DEMAND_FILE).touch()
        over = threading.Event()
        keeper = threading.Thread(
            target=_keep, args=(folder, checkpoints, over), name="model-server", daemon=True
        )
        keeper.start()
        try:
            with environment_of({SERVER_VARIABLE: str(folder)}):
                yield folder
        finally:
            over.set()
            keeper.join(_STOP_S)  # a server that is just starting ends with this process


def _keep(folder: Path, checkpoints: Sequence[Path], over: threading.Event) -> None:
    """Wait until the server is wanted, and run it until the block is over."""
    while not (folder / WANTED_FILE).exists():
        if over.wait(POLL_S):
            return
    try:
        with serve_models(checkpoints, folder=folder, replicas=_replicas()):
            over.wait()
    except Exception as error:  # whoever waits for the server must hear of it, whatever it is
        _tell(folder, error)
        if not isinstance(error, UserError | OSError):
            raise  # a bug keeps its traceback


def _replicas() -> int:
    """How many servers beside the first: a run's two cores are better used by two than by one."""
    return min(_MOST_SERVERS, len(os.sched_getaffinity(0))) - 1


def _tell(folder: Path, error: Exception) -> None:
    """Leave word for those who wait that the server does not come."""
    try:
        write_user_error(_as_user_error(folder, error), folder / FAILED_FILE)
    except OSError:
        (folder / ON_DEMAND_FILE).unlink(missing_ok=True)  # needs no room, and ends the waiting, too


def _as_user_error(folder: Path, error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    what = "the model server did not start"
    if isinstance(error, OSError):
        fix = "make room there, or check the path and its permissions, and run again"
        return UserError(f"{what}: {error.strerror or error}", where=str(error.filename or folder), fix=fix)
    said = " ".join(f"{type(error).__name__} {error}".split())
    return UserError(f"{what}: {said}", where=str(folder), fix="read the traceback that the run printed")
