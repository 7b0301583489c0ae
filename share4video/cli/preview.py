"""``share4video preview``: a few clips captioned before a run, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from share4video.cli.options import (
    ConfigOption,
    EngineOption,
    PromptsOption,
    SetOption,
    SourceArgument,
    read_settings,
    source_parameter,
)

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
        typer.echo(f"{done} of {total} clips captioned", err=True)

    found = caption_some(source_parameter(source, wanted), wanted, clips, on_clip=told)
    typer.echo(str(write_page(render_preview(found), out)))
