"""The live view of a run: one line per stage with its progress and time, under a time budget.

On a terminal the lines are redrawn in place; elsewhere each stage prints one plain line when it starts and
one when it ends, so that a log file stays readable.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from share4video.events import StageEvent

REFRESH_PER_S = 8


@dataclass
class _Line:
    """What is known of one stage."""

    stage: str
    started: float | None = None
    ended: float | None = None
    closing: StageEvent | None = None
    progress: dict[int | None, StageEvent] = field(default_factory=dict)
    spinner: Spinner = field(default_factory=lambda: Spinner("dots"))

    def elapsed(self, now: float) -> float:
        return 0.0 if self.started is None else (self.ended or now) - self.started

    @property
    def remark(self) -> str:
        if self.closing is not None:
            return describe(self.closing)
        if not self.progress:
            return ""
        done, total = (sum(getattr(e, name) for e in self.progress.values()) for name in ("done", "total"))
        return f"{next(reversed(self.progress.values())).label} {done} of {total}"


def describe(event: StageEvent) -> str:
    """Say in a few words how a stage ended."""
    if event.kind == "failed" or event.label:
        return event.label
    words = [f"{event.rows_in} in, {event.rows_out} out"]
    words += [
        f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(event.rejects.items()) if count
    ]
    return ", ".join([*words, "unchanged"] if event.reused else words)


def clock(seconds: float) -> str:
    """Format a duration as minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class RunView:
    """Shows events as they come; use as a context manager and hand `handle` to whoever reads them.

    Args:
        title: the heading.
        stages: the stages in their order, so that a reader sees what is still to come.
        budget_s: how long the run should take; shown, not enforced.
    """

    def __init__(
        self,
        title: str,
        stages: Sequence[str],
        *,
        budget_s: float | None = None,
        console: Console | None = None,
    ) -> None:
        self._title, self._budget_s = title, budget_s
        self._lines = {stage: _Line(stage) for stage in stages}
        self._console = console or Console(stderr=True)
        self._begun = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> RunView:
        self._begun = time.monotonic()
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self.render, console=self._console, refresh_per_second=REFRESH_PER_S
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def handle(self, event: StageEvent) -> None:
        """Take one event into account."""
        line = self._lines.setdefault(event.stage, _Line(event.stage))
        now = time.monotonic()
        if event.kind == "started" and line.started is None:
            line.started = now
            self._print(f"{event.stage} ...")
        elif event.kind == "progress":
            if event.shard is not None:  # what was counted before the work was divided is no part of it
                line.progress.pop(None, None)
            line.progress[event.shard] = event
        elif event.kind == "failed" or (event.kind == "finished" and event.shard is None):
            line.ended, line.closing = now, event
            self._print(f"{event.stage}: {describe(event)} ({clock(line.elapsed(now))})")

    def _print(self, text: str) -> None:
        if self._live is None:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def render(self) -> RenderableType:
        """Draw all stages as they stand."""
        now = time.monotonic()
        spent = now - self._begun
        heading = Text(self._title, style="bold")
        heading.append(f"  {clock(spent)}", style="bold")
        if self._budget_s is not None:
            late = spent > self._budget_s
            heading.append(f" of {clock(self._budget_s)}", style="bold yellow" if late else "dim")
        table = Table.grid(padding=(0, 2))
        for line in self._lines.values():
            running = line.started is not None and line.closing is None
            mark: RenderableType = line.spinner if running else _mark(line.closing)
            style = "dim" if line.started is None else ""
            table.add_row(
                mark,
                Text(line.stage, style=style),
                Text(clock(line.elapsed(now)) if line.started is not None else "", style="cyan"),
                Text(line.remark, style="red" if line.closing and line.closing.kind == "failed" else style),
            )
        return Group(heading, table)


def _mark(closing: StageEvent | None) -> Text:
    if closing is None:
        return Text("·", style="dim")
    if closing.kind == "failed":
        return Text("✗", style="red")
    return Text("=", style="dim") if closing.reused else Text("✓", style="green")
