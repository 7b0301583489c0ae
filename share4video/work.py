"""Where a run keeps what is its own and never published: journals, server logs, sockets, caches."""

from __future__ import annotations

import os
from pathlib import Path

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
