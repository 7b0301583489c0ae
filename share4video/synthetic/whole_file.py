"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".tmp-"  # what the name of an unfinished file starts with


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Let a file be written under another name in its folder, and give it its own at the end."""
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
