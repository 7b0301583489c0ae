"""A new folder that is there whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from share4video.errors import UserError


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside ``target`` that takes its name at the end, unless the block fails.

    What a killed process left in that folder is removed.

    Raises:
        UserError: there is something at ``target`` already, another process is writing it, or it cannot be
            written.
    """
    check_new(target)
    folder = target.with_name(f".{target.name}.writing")
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
            held.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            fix = "wait for it to end"
            raise UserError("another process is writing the folder", where=str(target), fix=fix) from error
        except OSError as error:
            raise _unwritable(target, error) from error
        held.callback(shutil.rmtree, folder, ignore_errors=True)  # gone already where it was renamed
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield folder
        try:
            os.replace(folder, target)
        except OSError as error:
            raise _unwritable(target, error) from error


def check_new(target: Path) -> None:
    """Raises UserError where something is at ``target`` that is more than an empty folder."""
    if target.is_dir() and not any(target.iterdir()):
        return
    if os.path.lexists(target):
        raise UserError("there is something already", where=str(target), fix="name a new folder")


def _unwritable(target: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write the folder: {error.strerror or error}", where=str(target), fix="name another"
    )
