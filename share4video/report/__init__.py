"""One self-contained HTML page about a run: what came of the clips, and why."""

from __future__ import annotations

from share4video.report.page import write_report

__all__ = ["write_report"]
