"""A benchmark as a command: its results as JSON, and a user's mistake as one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from share4video.errors import USER_ERROR_EXIT_CODE, UserError


def run(main: Callable[..., None]) -> None:
    """Run ``main`` with the options its signature has."""
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    try:
        app()
    except UserError as error:
        print(error.sentence(), file=sys.stderr)
        sys.exit(USER_ERROR_EXIT_CODE)


def write_results(out: Path | None, results: Mapping[str, Any]) -> None:
    """Write the results to ``out``, if there is one."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
