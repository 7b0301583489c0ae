"""Self-contained HTML pages about a run: what came of the clips and why, and which captions to look at."""

from __future__ import annotations

from share4video.report.page import write_report, write_suspicious

__all__ = ["write_report", "write_suspicious"]
