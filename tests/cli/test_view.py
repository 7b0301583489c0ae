"""The live view: plain lines without a terminal, a drawing with one."""

from __future__ import annotations

import io

from rich.console import Console

from share4video.cli.view import RunView, clock
from share4video.events import StageEvent


def plain() -> tuple[Console, io.StringIO]:
    sink = io.StringIO()
    return Console(file=sink, force_terminal=False, width=100), sink


def test_without_a_terminal_each_stage_has_a_line_when_it_starts_and_one_when_it_ends() -> None:
    console, sink = plain()
    with RunView("run", ["probe", "keyframes"], console=console) as view:
        view.handle(StageEvent(stage="probe", kind="started"))
        view.handle(StageEvent(stage="probe", kind="progress", done=1, total=3))
        rejects = {"too_long": 1, "none": 0}
        view.handle(
            StageEvent(stage="probe", kind="finished", ref="r", rows_in=3, rows_out=2, rejects=rejects)
        )
        view.handle(StageEvent(stage="keyframes", kind="started", shard=0))
        view.handle(StageEvent(stage="keyframes", kind="started", shard=1))
        view.handle(StageEvent(stage="keyframes", kind="finished", shard=0))
        view.handle(StageEvent(stage="keyframes", kind="failed", shard=1, label="no disk [red]"))
    assert sink.getvalue().splitlines() == [
        "probe ...",
        "probe: 3 in, 2 out, 1 too long (0:00)",
        "keyframes ...",
        "keyframes: no disk [red] (0:00)",
    ]


def test_on_a_terminal_all_stages_are_drawn_with_the_budget() -> None:
    sink = io.StringIO()
    console = Console(file=sink, force_terminal=True, width=100)
    view = RunView("demo", ["probe", "caption", "train"], budget_s=360, console=console)
    with view:
        view.handle(StageEvent(stage="probe", kind="finished", ref="r", rows_in=3, rows_out=3, reused=True))
        view.handle(StageEvent(stage="caption", kind="started"))
        view.handle(StageEvent(stage="caption", kind="progress", label="files read", done=10, total=10))
        for shard in (0, 1):
            view.handle(
                StageEvent(stage="caption", kind="progress", shard=shard, label="clips", done=2, total=5)
            )
    drawn = io.StringIO()
    Console(file=drawn, width=100).print(view.render())
    lines = drawn.getvalue().splitlines()
    assert lines[0].startswith("demo  0:0")
    assert "of 6:00" in lines[0]
    assert "3 in, 3 out, unchanged" in lines[1]
    assert "clips 4 of 10" in lines[2]  # both shards together, and not what was counted before them
    assert "train" in lines[3]
    assert sink.getvalue()


def test_clock() -> None:
    assert [clock(s) for s in (0, 59.9, 60, 3725)] == ["0:00", "0:59", "1:00", "62:05"]
