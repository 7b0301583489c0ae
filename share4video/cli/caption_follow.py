"""``share4video caption FILE --follow``: captions of a long video as it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import typer

from share4video.caption_file import follow_clip
from share4video.captioning.clip import SpanCaption
from share4video.cli.options import source_parameter
from share4video.cli.runs import engines_running
from share4video.config import RunConfig
from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.media.sources import list_sources
from share4video.media.sources.cache import LocalCopies


def caption_following(source: str, settings: RunConfig) -> None:
    """Print a JSON line per caption as it comes; a video that is not on this machine is copied first.

    Raises:
        UserError: the source is not one video, or it cannot be captioned; lines printed until then stand.
    """
    engines = settings.engines
    with _one_file(source, settings) as path, engines_running([engines.captioner, engines.summarizer]):
        follow_clip(
            path,
            engines.captioner,
            engines.summarizer,
            on_caption=_print,
            keyframes=settings.keyframes,
            config=settings.caption,
        )


def _print(caption: SpanCaption) -> None:
    typer.echo(json.dumps(asdict(caption), ensure_ascii=False))


@contextmanager
def _one_file(source: str, settings: RunConfig) -> Iterator[Path]:
    """Hold a local file with the one video of a source."""
    rows = list_sources(source_parameter([source], settings))
    if len(rows) > 1:
        raise UserError(f"the source holds {len(rows)} videos", where=source, fix="follow one at a time")
    try:
        place = rows[0].place
        if place.path is not None:
            yield place.path
            return
        with LocalCopies.of_environment().added(place, settings.probe.max_file_bytes) as copy:
            yield copy.path
    except MediaError as error:
        raise UserError(error.sentence, where=source, fix="give one video file") from error
