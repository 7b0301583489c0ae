"""Running stages from the command line: with the engines up, under the live view."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from share4video.captioning.derived import DerivedPlan
from share4video.captioning.engine import resolve
from share4video.cli.options import make_folder
from share4video.cli.view import RunView
from share4video.config import EngineSpec, RunConfig
from share4video.stages.chain import Chain
from share4video.store import Store

if TYPE_CHECKING:
    from pipelines.catalogue import Entry
    from pipelines.local import LocalRun

RUNS_FOLDER = Path("runs")

T = TypeVar("T")


def run_in_process(
    title: str,
    stages: Sequence[str],
    config: RunConfig,
    store: str,
    work: Callable[[Chain], T],
    *,
    engines: Sequence[EngineSpec | None],
) -> T:
    """Run ``work`` on a chain of stages in this process, shown live.

    Args:
        stages: the stages it will run, in order.
        engines: the engines it will call; those that are local models share one server.

    Raises:
        UserError: as `check_engines`, before anything is worked on, and what ``work`` raises.
    """
    check_engines(stages, config, engines)
    opened = Store.open(store)
    with RunView(title, stages) as view, engines_running(engines):
        return work(Chain(config, opened, view.handle))


def run_as_pipeline(
    entry: Entry,
    arguments: Mapping[str, str],
    config: RunConfig,
    *,
    runs: Path = RUNS_FOLDER,
    budget_s: float | None = None,
) -> LocalRun:
    """Run a pipeline with KFP's local runner, shown live; its log is kept below ``runs``.

    Raises:
        UserError: as `check_engines`, before anything is run; what a task recorded as the user's mistake.
        PipelineFailed: a task failed otherwise.
    """
    from pipelines.local import run_local

    check_engines(entry.stages, config, pipeline_engines(entry, config))
    folder = new_run_folder(runs, entry.name)
    with (
        RunView(entry.name, entry.stages, budget_s=budget_s) as view,
        engines_running(pipeline_engines(entry, config)),
    ):
        return run_local(entry.name, arguments, folder, on_event=view.handle)


def check_engines(stages: Sequence[str], config: RunConfig, engines: Sequence[EngineSpec | None]) -> None:
    """Check that engines can be asked for what the stages want of them, before anything is paid for.

    Local models are left to the stages: to name one is to read all of it.

    Raises:
        UserError: an endpoint's model is not named, or an engine's prompts lack a role that is wanted.
    """
    wanted = list(engines)
    if "caption" in stages:
        DerivedPlan.of(config.caption, config.engines.summarizer or config.engines.captioner)
        wanted.append(config.caption.checks.judge)
    for spec in wanted:
        if spec is not None and spec.model_path is None:
            resolve(spec)


def pipeline_engines(entry: Entry, config: RunConfig) -> list[EngineSpec | None]:
    """Return the engines a pipeline will call."""
    engines: list[EngineSpec | None] = [getattr(config.engines, role) for role in entry.engines]
    if "evaluate" in entry.configs:
        engines.append(EngineSpec(model_path=config.train.base_model))
    return engines


def new_run_folder(runs: Path, name: str) -> Path:
    """Make and return a folder for one run's log, named after the pipeline and the time."""
    make_folder(runs)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for attempt in range(100):
        folder = runs / (f"{name}-{stamp}" + (f"-{attempt}" if attempt else ""))
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder.absolute()
    raise RuntimeError(f"no free name for a run below {runs}")


@contextmanager
def engines_running(engines: Sequence[EngineSpec | None]) -> Iterator[None]:
    """Let the local models among ``engines`` be served by one process, from when one is first asked."""
    local = [spec for spec in engines if spec is not None and spec.model_path is not None]
    if not local:
        yield
        return
    from share4video.captioning.on_demand import server_on_demand

    with server_on_demand(local):
        yield
