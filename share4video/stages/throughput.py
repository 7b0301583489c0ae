"""How fast a stage gets through its files, for the live view."""

from __future__ import annotations

import time


class Rate:
    """Counts files and bytes from when it is made.

    Args:
        what: what is counted, as the label of the stage's progress.
    """

    def __init__(self, what: str) -> None:
        self._what, self._begun = what, time.monotonic()
        self._files, self._bytes = 0, 0

    def add(self, size: int) -> None:
        """Count one more file of ``size`` bytes."""
        self._files += 1
        self._bytes += size

    def label(self) -> str:
        """Return the label with the mean throughput so far, as ``12.5 files/s, 80.0 MB/s, files read``."""
        seconds = max(time.monotonic() - self._begun, 1e-3)
        return f"{self._files / seconds:.1f} files/s, {self._bytes / seconds / 1e6:.1f} MB/s, {self._what}"
