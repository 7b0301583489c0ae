"""What a stage says while it runs: one JSON line per event, appended to a file its starter reads.

A pipeline task runs in a process of its own, possibly beside another one, and the process that started it
draws the live view. The file's path travels in ``SHARE4VIDEO_EVENTS``; where it is unset nothing is written.
An event is for people to look at: no published table is made from one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

EVENTS_VARIABLE = "SHARE4VIDEO_EVENTS"


class StageEvent(BaseModel):
    """One thing that happened to a stage.

    Attributes:
        stage: the stage's name in the view, such as ``keyframes`` or ``evaluate-base``.
        shard: which shard of a wide stage it concerns; None for the stage as a whole.
        label: what is counted (progress) or a one-line remark (finished).
        done: how much of ``total`` is done.
        reused: whether the output was there already.
        ref: the published output as ``stage/key@hash``, on ``finished`` of a whole stage.
        details: facts for the summary that are not numbers, such as the gate's decision; on ``failed`` the
            ``traceback`` of what is no user's mistake.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    kind: Literal["started", "progress", "finished", "failed"]
    shard: int | None = None
    label: str = ""
    done: int = 0
    total: int = 0
    rows_in: int = 0
    rows_out: int = 0
    rejects: dict[str, int] = {}
    reused: bool = False
    metrics: dict[str, float] = {}
    ref: str = ""
    details: dict[str, str] = {}


Emit = Callable[[StageEvent], None]


def append_event(event: StageEvent) -> None:
    """Append ``event`` to the file named in the environment.

    One ``write`` on a descriptor opened for appending: lines of tasks that run side by side do not mix.
    """
    path = os.environ.get(EVENTS_VARIABLE)
    if not path:
        return
    line = event.model_dump_json(exclude_defaults=True) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


class EventReader:
    """Reads events as they are appended; a line that is not whole yet waits for the next call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[StageEvent]:
        """Return the events appended since the last call. A line that is no event is passed over."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            block = file.read()
        whole = block[: block.rfind(b"\n") + 1]
        self._offset += len(whole)
        events = []
        for line in whole.splitlines():
            try:
                events.append(StageEvent.model_validate_json(line))
            except ValidationError:  # a line cut by a full disk or written by a later version
                continue
        return events
