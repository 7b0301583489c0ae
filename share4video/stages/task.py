"""A stage run as one task: events while it runs, a user's error left for the starter, outputs filled.

Both the KFP components and the command line run stages through here, so that they report alike. The
artifacts are duck-typed: this module knows the attributes KFP gives them, not KFP.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from share4video.config import Config
from share4video.errors import UserError, record_user_error
from share4video.events import Emit, StageEvent, append_event
from share4video.stages.contract import StageResult
from share4video.store import Store

PROGRESS_INTERVAL_S = 0.2
MAX_TRACEBACK_CHARACTERS = 20_000

C = TypeVar("C", bound=Config)


class PointerArtifact(Protocol):
    """An artifact that names a place in the store instead of holding data."""

    uri: str
    metadata: dict[str, Any]


class MetricsArtifact(Protocol):
    def log_metric(self, metric: str, value: float) -> None: ...


class TextArtifact(Protocol):
    """A Markdown or HTML artifact: a file KFP shows."""

    @property
    def path(self) -> str: ...


class StageTask:
    """The running task; made by `stage_task`."""

    def __init__(self, stage: str, store: Store, emit: Emit, shard: int | None) -> None:
        self.stage, self.store, self.shard = stage, store, shard
        self._emit = emit
        self._last_progress = -math.inf

    def progress(self, label: str, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` are done; at most a few events a second are written."""
        now = time.monotonic()
        if done < total and now - self._last_progress < PROGRESS_INTERVAL_S:
            return
        self._last_progress = now
        self._emit(
            StageEvent(
                stage=self.stage, kind="progress", shard=self.shard, label=label, done=done, total=total
            )
        )

    def done(self, remark: str) -> None:
        """Report the end of a task that publishes nothing."""
        self._emit(StageEvent(stage=self.stage, kind="finished", label=remark))

    @staticmethod
    def planned(shards: Sequence[object]) -> list[str]:
        """Return a plan's shards as ParallelFor takes them: strings, because KFP's numbers are floats, and at
        least one, because KFP cannot collect from an empty loop."""
        assert shards, "a plan has at least one shard"
        return [str(shard) for shard in shards]

    def finish(
        self,
        result: StageResult,
        *,
        output: PointerArtifact | None = None,
        metrics: MetricsArtifact | None = None,
        summary: TextArtifact | None = None,
        details: Mapping[str, str] | None = None,
    ) -> str:
        """Report the stage's result, fill the task's artifacts, and return the output as a parameter.

        Args:
            result: what the stage returned.
            output: gets the output's address in the store and its hash; KFP then copies no data.
            metrics: gets rows, rejects and the stage's metrics; numbers that are not finite are left out,
                because KFP fails a task over one.
            summary: gets `summary_markdown`.
            details: facts for the summary that are not numbers.
        """
        numbers = {name: value for name, value in _numbers(result).items() if math.isfinite(value)}
        if output is not None:
            output.uri = self.store.url(result.ref.prefix)
            output.metadata["ref"] = str(result.ref)
        if metrics is not None:
            for name, value in numbers.items():
                metrics.log_metric(name, value)
        if summary is not None:
            target = Path(summary.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(summary_markdown(result, details or {}), encoding="utf-8")
        self._emit(
            StageEvent(
                stage=self.stage,
                kind="finished",
                rows_in=result.rows_in,
                rows_out=result.rows_out,
                rejects=result.rejects,
                reused=result.unchanged,
                metrics={k: v for k, v in result.metrics.items() if math.isfinite(v)},
                ref=str(result.ref),
                details=dict(details or {}),
            )
        )
        return str(result.ref)


@contextmanager
def stage_task(
    stage: str, store: str | Store, *, shard: int | None = None, emit: Emit = append_event
) -> Iterator[StageTask]:
    """Run a stage's body as a task.

    Args:
        stage: the name it is reported under.
        store: the store or its root.
        shard: the shard this task works on, for one of a wide stage's tasks.
        emit: where its events go; by default the file named in the environment.

    Raises:
        UserError: whatever the body raised, after it was recorded for the process that started this one.
    """
    emit(StageEvent(stage=stage, kind="started", shard=shard))
    try:
        yield StageTask(stage, Store.open(store) if isinstance(store, str) else store, emit, shard)
    except UserError as error:
        record_user_error(error)
        emit(StageEvent(stage=stage, kind="failed", shard=shard, label=error.sentence()))
        raise
    except Exception as error:
        label = f"{type(error).__name__}: {error}"
        details = {"traceback": traceback.format_exc()[-MAX_TRACEBACK_CHARACTERS:]}
        emit(StageEvent(stage=stage, kind="failed", shard=shard, label=label, details=details))
        raise
    if shard is not None:
        emit(StageEvent(stage=stage, kind="finished", shard=shard))


def parse_stage_config(model: type[C], text: str) -> C:
    """Read a stage's configuration from a task parameter; ``{}`` means the defaults.

    Raises:
        UserError: the text is not JSON of this model.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate_json(text or "{}")
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"]) or "the whole"
        raise UserError(
            f"wrong configuration: {first['msg'].removeprefix('Value error, ')}",
            where=f"{model.__name__}, {key}",
            fix="correct it",
        ) from None


def summary_markdown(result: StageResult, details: Mapping[str, str]) -> str:
    """Describe a result as KFP's UI shows it: rows, rejects by reason, metrics."""
    lines = [
        f"### {result.ref.stage}",
        "",
        f"`{result.ref}` ({_state(result)})",
        "",
        "| | |",
        "|---|---:|",
        f"| rows in | {result.rows_in} |",
        f"| rows out | {result.rows_out} |",
    ]
    lines += [f"| rejected: {reason} | {count} |" for reason, count in sorted(result.rejects.items())]
    lines += [f"| {name} | {value:.6g} |" for name, value in sorted(result.metrics.items())]
    lines += [f"| {name} | {value.replace('|', ' ')} |" for name, value in sorted(details.items())]
    return "\n".join(lines) + "\n"


def _state(result: StageResult) -> str:
    if result.unchanged:
        return "unchanged"
    if result.computed_shards is None:
        return f"shards computed or reused: {result.total_shards}"
    return f"{result.computed_shards} of {result.total_shards} shards computed"


def _numbers(result: StageResult) -> dict[str, float]:
    rejects = {f"rejected_{reason}": float(count) for reason, count in result.rejects.items()}
    return {"rows_in": float(result.rows_in), "rows_out": float(result.rows_out), **rejects, **result.metrics}
