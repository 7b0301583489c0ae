"""A folder that one process alone writes in, and a new one that is there whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from share4video.errors import UserError


@contextmanager
def own_folder(path: Path, of: str) -> Iterator[Path]:
    """Yield ``path`` as an empty folder no other process has; what a killed one left there is removed.

    It is gone afterwards, unless the block gave it another name. A link is not followed: whoever put it there
    would choose what is removed.

    Args:
        path: its parent is there.
        of: what a person knows the work by.

    Raises:
        UserError: another process has it, or it cannot be made.
    """
    try:
        path.mkdir(exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise UserError(
            f"cannot make a folder to work in: {error.strerror}",
            where=str(path),
            fix="remove what is there, or name a writable one",
        ) from error
    try:
        if not _taken(path, descriptor):
            raise UserError("another process is at it", where=of, fix="wait for it to end")
        for name in os.listdir(descriptor):
            _remove(name, descriptor)
        try:
            yield path
        finally:
            if _is(path, descriptor):  # else it was renamed, and this may be the next process's
                shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside ``target`` that takes its name at the end, unless the block fails.

    Raises:
        UserError: there is something at ``target`` already, another process is writing it, or it cannot be
            written.
    """
    check_new(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(target, error) from error
    with own_folder(target.with_name(f".{target.name}.writing"), str(target)) as folder:
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


def _taken(path: Path, descriptor: int) -> bool:
    """Lock an open folder; False where another has it, or it lost its name before it was locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return _is(path, descriptor)


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except OSError:
        return False


def _remove(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=folder)


def _unwritable(target: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write the folder: {error.strerror or error}", where=str(target), fix="name another"
    )
