"""What every page is made with: the templates' environment, and a file that is replaced whole."""

from __future__ import annotations

import os
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from share4video.errors import UserError


def write_page(page: str, path: Path) -> Path:
    """Write a page, replacing the file whole where it exists. Raises UserError where it cannot be written."""
    partial = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(page, encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write the report: {error.strerror}", where=str(path), fix="give a writable folder"
        ) from error
    return path


def page_environment() -> Environment:
    """Return the environment of the templates beside this file: everything is escaped, nothing undefined."""
    environment = Environment(
        loader=PackageLoader("share4video.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.0f} %"
    environment.filters["seconds"] = lambda time_s: f"{time_s:.2f} s"
    environment.filters["spaced"] = lambda name: str(name).replace("_", " ").replace("-", " ")
    environment.filters["number"] = _number
    environment.filters["count"] = count
    return environment


def count(number: int) -> str:
    """Format a whole number with its thousands apart."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _number(value: float | None) -> str:
    """Format a measured value or a bound; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:.4g}" if abs(value) < 1000 else count(round(value))
