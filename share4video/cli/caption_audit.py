"""``share4video caption-audit``: does a captioner look at time? On any clips, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from share4video.cli.options import ConfigOption, SetOption, SourceArgument, read_settings, source_parameter
from share4video.config import EngineSpec
from share4video.errors import UserError
from share4video.media.sources import list_sources

if TYPE_CHECKING:
    from share4video.caption_audit import AuditReport
    from share4video.evaluation.temporal_audit import Tally

_EXPECTED = {
    "reversed": "directions invert",
    "order": "what was first is last",
    "shuffled": "steps back in time invert",
    "frozen": "nothing changes",
}
_EXAMPLES = 5


def caption_audit(
    source: SourceArgument,
    clips: Annotated[
        int, typer.Option("--clips", min=1, max=10_000, metavar="N", help="Take the first N clips by name.")
    ] = 20,
    frames: Annotated[
        int,
        typer.Option("--frames", min=2, max=1000, metavar="N", help="Take the first N key frames of a clip."),
    ] = 12,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="ENGINE",
            help="builtin:NAME, a checkpoint folder, or URL#MODEL; default: the configured captioner.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where the findings go, as JSON.")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Caption clips forward, backwards, shuffled and frozen, and count what contradicts the order of time."""
    from share4video.caption_audit import audit_files

    wanted = read_settings(config, settings)
    spec = _engine(engine, wanted.engines.captioner) if engine else wanted.engines.captioner
    rows = list_sources(source_parameter(source, wanted))[:clips]
    report = audit_files(rows, spec, wanted, frames=frames)
    if out is not None:
        _write(report, out)
    _print(report, Console())


def _engine(text: str, configured: EngineSpec) -> EngineSpec:
    """Return the engine a person names, called as the configured one is."""
    address, _, model = text.partition("#")
    nowhere = {"url": None, "model_path": None, "inference_service": None, "model": "", "revision": ""}
    if "://" not in address:
        return configured.model_copy(update={**nowhere, "model_path": text})
    if not model:
        raise UserError("the engine's model is not named", where=text, fix="write URL#MODEL")
    return configured.model_copy(update={**nowhere, "url": address, "model": model})


def _write(report: AuditReport, out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write the findings: {error.strerror}", where=str(out), fix="give a writable folder"
        ) from error


def _print(report: AuditReport, console: Console) -> None:
    table = Table("test", "expected", title=f"{report.engine}, {report.clips} clips")
    for name in ("tested", "violated", "rate", "95 % interval", "silent"):
        table.add_column(name, justify="right")
    for test, result in report.tests.items():
        table.add_row(test, _EXPECTED[test], *_numbers(result))
    console.print(table)
    console.print(
        f"{report.nothing_to_test} of {report.clips} clips had nothing to test: no change was told."
    )
    lines = [f"left out: {uri}: {why}" for uri, why in report.left_out.items()]
    lines += [
        f"{found.clip}, {found.test}, step {found.step}: expected {found.expected}, said: {found.said}"
        for found in [finding for finding in report.findings if finding.violated][:_EXAMPLES]
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _numbers(result: Tally) -> list[str]:
    rate, interval = "", ""
    if result.rate is not None:
        rate, interval = f"{result.rate.estimate:.0%}", f"{result.rate.low:.0%} to {result.rate.high:.0%}"
    return [str(result.tested), str(result.violated), rate, interval, str(result.silent)]
