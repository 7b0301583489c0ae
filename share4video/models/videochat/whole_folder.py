"""A new folder that is there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from share4video.errors import UserError


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside ``target`` that takes its name at the end, unless the block fails.

    Raises:
        UserError: there is something at ``target`` already, or it cannot be written.
    """
    check_new(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            yield folder
            folder.chmod(0o755)  # a temporary folder is its maker's alone
            os.replace(folder, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # gone already where it was renamed
    except OSError as error:
        raise UserError(
            f"cannot write the folder: {error.strerror or error}", where=str(target), fix="name another"
        ) from error


def check_new(target: Path) -> None:
    """Raises UserError where something is at ``target`` that is more than an empty folder."""
    if target.is_dir() and not any(target.iterdir()):
        return
    if os.path.lexists(target):
        raise UserError("there is something already", where=str(target), fix="name a new folder")
