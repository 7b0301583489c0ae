"""What the verbs print on stdout."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from share4video.dataset.manifest import StageRef


def print_refs(refs: Mapping[str, StageRef]) -> None:
    """Print published outputs as NAME STAGE/KEY@HASH, one a line, for people and for ``cut``."""
    width = max(len(name) for name in refs)
    for name, ref in refs.items():
        typer.echo(f"{name:<{width}}  {ref}")
