"""The demo benchmark: what it measures of a command, and what it reads of its table."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.demo import measure, summary, table

CHILD = "import time; held = bytearray(200_000_000); time.sleep(3)"
PARENT = (
    f"import subprocess, sys; print('Nothing changed'); subprocess.run([sys.executable, '-c', {CHILD!r}])"
)


def test_memory_of_descendants_counts(tmp_path: Path) -> None:
    took = measure([sys.executable, "-c", PARENT], tmp_path)
    assert took["peak_pss_gb"] >= 0.2
    assert took["seconds"] >= 3
    assert (took["exit"], took["unchanged"]) == (0, True)


def test_a_failed_run_is_told(tmp_path: Path) -> None:
    took = measure([sys.executable, "-c", "raise SystemExit(2)"], tmp_path)
    assert (took["exit"], took["unchanged"], took["summary"]) == (2, False, {})
    sink = io.StringIO()
    Console(file=sink, width=100).print(table({"runs": {"empty store": took}}))
    assert "empty store" in sink.getvalue()


def test_the_demos_table_is_read_whole() -> None:
    drawn = Table(show_header=False, title="What came of the clips")
    drawn.add_column()
    drawn.add_column(overflow="fold")
    drawn.add_row("clips in", "15")
    drawn.add_row("rejected", "1 black, " * 12)
    sink = io.StringIO()
    Console(file=sink, width=60).print(drawn)
    assert summary(sink.getvalue()) == {"clips in": "15", "rejected": ("1 black, " * 12).strip()}
