"""Run a pipeline on this machine with KFP's local runner, so that nothing outlives the one who asked for it.

KFP's runner leaves its tasks running when it is killed and buries a task's error under hundreds of lines. So
it runs in a child (`pipelines.local_child`) under the supervisor that model servers run under: the child and
its tasks are one process group, which is ended when this process ends, in whatever way. Its output goes to a
log file; what the stages report comes back through files named in the environment.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import share4video
from share4video.errors import ERROR_FILE_VARIABLE, read_user_error
from share4video.events import EVENTS_VARIABLE, Emit, EventReader, StageEvent

POLL_INTERVAL_S = 0.2
TAIL_LINES = 20


class PipelineFailed(RuntimeError):
    """A task failed for a reason that is no user's mistake; the message holds the end of the log."""


@dataclass
class LocalRun:
    """What a finished run left.

    Attributes:
        folder: holds ``run.log``, ``events.jsonl``, ``refs.json`` and what KFP wrote.
        refs: the published output of every stage, ``stage/key@hash`` by stage name.
        finished: the event that closed each stage, by stage name.
        seconds: how long it took.
        traceback: of the first task that failed by no user's mistake, where it could still say so.
    """

    folder: Path
    refs: dict[str, str] = field(default_factory=dict)
    finished: dict[str, StageEvent] = field(default_factory=dict)
    seconds: float = 0.0
    traceback: str = ""

    @property
    def unchanged(self) -> bool:
        """Whether every stage that publishes found its output already published."""
        return all(self.finished[stage].reused for stage in self.refs)


def run_local(
    pipeline: str | Path,
    arguments: Mapping[str, str],
    folder: Path,
    *,
    on_event: Emit = lambda event: None,
    environment: Mapping[str, str] | None = None,
) -> LocalRun:
    """Run a pipeline and wait for it.

    Args:
        pipeline: the name of one of ours, or a file that holds a compiled one.
        arguments: the pipeline's arguments.
        folder: where the log and KFP's own files go; made if missing.
        on_event: called with every event of every stage, in this thread.
        environment: variables for the tasks, beside this process's own.

    Raises:
        UserError: what a task recorded as the user's mistake.
        PipelineFailed: a task failed otherwise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, events, error_file = folder / "run.log", folder / "events.jsonl", folder / "error.json"
    for stale in (events, error_file):
        stale.unlink(missing_ok=True)
    request = folder / "request.json"
    request.write_text(
        json.dumps({"pipeline": str(pipeline), "arguments": dict(arguments), "root": str(folder / "kfp")}),
        encoding="utf-8",
    )
    variables = {
        **os.environ,
        **(environment or {}),
        **_import_path(),
        EVENTS_VARIABLE: str(events.resolve()),
        ERROR_FILE_VARIABLE: str(error_file.resolve()),
    }
    run, reader, started = LocalRun(folder), EventReader(events), time.monotonic()
    with _child(request, log, variables) as child:
        while child.poll() is None:
            _deliver(reader, run, on_event)
            time.sleep(POLL_INTERVAL_S)
    _deliver(reader, run, on_event)
    run.seconds = time.monotonic() - started
    if child.returncode != 0:
        error = read_user_error(error_file)
        if error is not None:
            raise error
        raise PipelineFailed(_post_mortem(child.returncode, log, run.traceback))
    (folder / "refs.json").write_text(json.dumps(run.refs, indent=1) + "\n", encoding="utf-8")
    return run


@contextmanager
def _child(request: Path, log: Path, variables: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the child that runs the pipeline; on the way out its whole process group is gone."""
    command = [sys.executable, "-m", "pipelines.local_child", str(request)]
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "share4video.captioning.supervisor", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(variables),
        )
    assert child.stdin is not None
    try:
        yield child
    finally:
        child.stdin.close()  # tells the supervisor to end the group, where it has not ended
        child.wait()


def _deliver(reader: EventReader, run: LocalRun, on_event: Emit) -> None:
    for event in reader.read():
        if event.kind == "finished" and event.shard is None:
            run.finished[event.stage] = event
            if event.ref:
                run.refs[event.stage] = event.ref
        run.traceback = run.traceback or event.details.get("traceback", "")
        on_event(event)


def _import_path() -> dict[str, str]:
    """Let the child and its tasks import what this process imports, also from a source checkout."""
    root = str(Path(share4video.__file__).resolve().parents[1])
    if Path(root).name in ("site-packages", "dist-packages"):
        return {}
    given = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{root}{os.pathsep}{given}" if given else root}


def _post_mortem(code: int, log: Path, traceback: str) -> str:
    """Say how the run ended: the traceback of the first task that failed in its stage, else the log's end.

    The log itself mixes the lines of tasks that run side by side.
    """
    shown = (
        traceback.splitlines() or log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    )
    return "\n".join([f"the pipeline failed (code {code}); the whole log is {log}", *shown])
