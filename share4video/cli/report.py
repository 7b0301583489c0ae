"""``share4video report``: one self-contained HTML page about a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from share4video.cli.options import DEFAULT_STORE, StoreOption
from share4video.cli.runs import RUNS_FOLDER
from share4video.dataset.manifest import StageRef
from share4video.dataset.outputs import made_from
from share4video.errors import UserError
from share4video.stages.chain import CAPTION_STAGES, CURATE_STAGES
from share4video.store import Store

REFS_FILE = "refs.json"


def report(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help=f"A pipeline run's folder, default: the newest in {RUNS_FOLDER}/; or what was published, as "
            "dataset/KEY@HASH or caption/KEY@HASH.",
        ),
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

    opened = Store.open(store)
    if run is not None and "@" in run and not Path(run).exists():
        refs = made_from(opened, StageRef.parse(run), (*CURATE_STAGES, *CAPTION_STAGES))
    else:
        refs = _read_refs(Path(run) if run is not None else _newest_run())
    if suspicious:
        typer.echo(str(write_suspicious(opened, refs, out)))
        return
    typer.echo(str(write_report(opened, refs, out, truth=truth)))


def _newest_run() -> Path:
    found = sorted(RUNS_FOLDER.glob(f"*/{REFS_FILE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(
            "no finished run of a pipeline",
            where=str(RUNS_FOLDER),
            fix="name a run's folder, or what was published, as dataset/KEY@HASH",
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
