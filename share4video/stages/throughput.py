"""How fast a stage gets through its files, for the live view."""

from __future__ import annotations

import time

from share4video.stages.contract import Progress


class Meter:
    """Counts files and bytes from when it is made, and reports them with their mean throughput.

    Args:
        what: what is counted, as the end of the label, which begins ``12.5 files/s, 80.0 MB/s``.
        total: how many files there are.
        report: called with the label, how many files are done, and how many there are.
    """

    def __init__(self, what: str, total: int, report: Progress | None) -> None:
        self._what, self._total, self._report = what, total, report
        self._begun = time.monotonic()
        self._done = self._worked = self._bytes = 0

    def add(self, size: int) -> None:
        """Count one more file of ``size`` bytes."""
        self._worked += 1
        self._bytes += size
        self.skip(1)

    def skip(self, files: int) -> None:
        """Count files that cost nothing, because they had been done before."""
        self._done += files
        if self._report is not None:
            seconds = max(time.monotonic() - self._begun, 1e-3)
            speed = f"{self._worked / seconds:.1f} files/s, {self._bytes / seconds / 1e6:.1f} MB/s"
            self._report(f"{speed}, {self._what}", self._done, self._total)
