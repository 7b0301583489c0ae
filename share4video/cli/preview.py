"""``share4video preview``: a few clips captioned before a run, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from share4video.captioning.client import CallError
from share4video.cli.options import (
    ConfigOption,
    EngineOption,
    PromptsOption,
    SetOption,
    SourceArgument,
    read_settings,
    source_parameter,
)
from share4video.errors import UserError

if TYPE_CHECKING:
    from share4video.captioning.preview import Preview

MAX_CLIPS = 50


def preview(
    source: SourceArgument,
    clips: Annotated[
        int, typer.Option("--clips", metavar="N", min=1, max=MAX_CLIPS, help="How many clips.")
    ] = 5,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page.")] = Path(
        "preview.html"
    ),
    engine: EngineOption = None,
    prompts: PromptsOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Caption a few clips of every SOURCE and show each prompt and answer; nothing is published."""
    wanted = read_settings(config, settings, engine=engine, prompts=prompts)

    from share4video.preview import preview as caption_some
    from share4video.report.preview_page import render_preview
    from share4video.report.writing import write_page

    def told(done: int, total: int) -> None:
        typer.echo(f"{done} of {total} clips looked at", err=True)

    found = caption_some(source_parameter(source, wanted), wanted, clips, on_clip=told)
    typer.echo(str(write_page(render_preview(found), out)))
    if passed_over := sum(bool(clip.rejection) for clip in found.clips):
        typer.echo(f"{passed_over} of {len(found.clips)} clips passed over, as a run would", err=True)
    _refuse_silence(found)


def _refuse_silence(found: Preview) -> None:
    """Check that the engine is not the reason why there is no caption at all. Raises UserError if it is."""
    calls = [call for clip in found.clips for call in clip.calls]
    failures = [call for call in calls if isinstance(call.outcome, CallError)]
    if failures and len(failures) == len(calls) and not any(clip.captions for clip in found.clips):
        raise UserError(
            f"no clip got a caption: {str(failures[0].outcome).rstrip('.')}",
            where=found.captioner.model,
            fix="check that the engine runs and takes these pictures, then preview again",
        )
