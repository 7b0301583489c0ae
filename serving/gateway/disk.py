"""What the media of all requests may take on the disk at a time."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from serving.gateway.refusal import Refusal

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class DiskBudget:
    """A number of bytes that the files of all requests share.

    Args:
        bound: the number; None for no bound.
    """

    def __init__(self, bound: int | None = None) -> None:
        self._bound, self._used = bound, 0
        self._lock = threading.Lock()  # data: URIs are written in threads

    @contextmanager
    def share(self) -> Iterator[DiskShare]:
        """Give a request its share, which grows as it writes; leave the block when its files are deleted."""
        share = DiskShare(self)
        try:
            yield share
        finally:
            with self._lock:
                self._used -= share.size

    def take(self, size: int) -> None:
        """Count ``size`` bytes. Raises Refusal (429) where they are more than is left."""
        with self._lock:
            if self._bound is not None and self._used + size > self._bound:
                raise Refusal(429, "busy", "the gateway holds all the media it may; try again")
            self._used += size


class DiskShare:
    """What one request's files take of a budget.

    Attributes:
        size: in bytes.
    """

    def __init__(self, budget: DiskBudget) -> None:
        self._budget, self.size = budget, 0

    def open(self, path: Path) -> io.BufferedWriter:
        """Open a new file. Writing to it raises Refusal (429) where that is more than is left."""
        return _CountedFile(path, self)

    def take(self, size: int) -> None:
        self._budget.take(size)
        self.size += size


class _CountedFile(io.BufferedWriter):
    """A file whose bytes are counted before they are written."""

    def __init__(self, path: Path, share: DiskShare) -> None:
        super().__init__(io.FileIO(path, "w"))
        self._share = share

    def write(self, block: ReadableBuffer, /) -> int:
        self._share.take(memoryview(block).nbytes)
        return super().write(block)
