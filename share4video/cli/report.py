"""``share4video report``: one self-contained HTML page about a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from share4video.cli.options import DEFAULT_STORE, StoreOption
from share4video.cli.runs import RUNS_FOLDER
from share4video.dataset.manifest import StageRef
from share4video.errors import UserError
from share4video.store import Store

REFS_FILE = "refs.json"


def report(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help=f"The run's folder; default: the newest in {RUNS_FOLDER}/."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth", metavar="DIR", help="The truth of synthetic clips, to score captions against."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page.")] = Path("report.html"),
    suspicious: Annotated[
        bool, typer.Option("--suspicious", help="Only the ten clips whose captions are the most suspicious.")
    ] = False,
) -> None:
    """Write a page about what a run published: clips, key frames, captions, rejects, answers."""
    from share4video.report import write_report, write_suspicious

    refs = _read_refs(run or _newest_run())
    if suspicious:
        typer.echo(str(write_suspicious(Store.open(store), refs, out)))
        return
    typer.echo(str(write_report(Store.open(store), refs, out, truth=truth)))


def _newest_run() -> Path:
    found = sorted(RUNS_FOLDER.glob(f"*/{REFS_FILE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(
            "no finished run", where=str(RUNS_FOLDER), fix="run a pipeline first, or name the run's folder"
        )
    return found[-1].parent


def _read_refs(run: Path) -> dict[str, StageRef]:
    file = run / REFS_FILE
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        return {str(stage): StageRef.parse(str(ref)) for stage, ref in dict(fields).items()}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"cannot read what the run published: {error}",
            where=str(file),
            fix="name the folder of a finished run",
        ) from None
