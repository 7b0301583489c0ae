"""Several sources in one string: one a line, which is how stages, tasks and pipelines take them.

``allow=PREFIX`` on a line of its own extends what lists may name. A list whose archives lie elsewhere says so
at its end: ``/data/sharegpt4video_40k.jsonl#zip_folder=/mnt/zips``.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from share4video.errors import UserError

ALLOW = "allow="
ZIP_FOLDER = "#zip_folder="


@dataclass(frozen=True)
class Spec:
    """What a source string says: the sources, each by its base name, and the allowed prefixes."""

    sources: dict[str, str]
    allow: tuple[str, ...]


def join_sources(sources: Sequence[str], allow: Sequence[str] = ()) -> str:
    """Return the one string for several sources and the prefixes that lists may name.

    Raises:
        UserError: a path holds a line break.
    """
    lines = [*sources, *(f"{ALLOW}{prefix}" for prefix in allow)]
    for line in lines:
        if "\n" in line:
            raise UserError("a source's path holds a line break", where=repr(line), fix="rename it")
    return "\n".join(lines)


@lru_cache(maxsize=64)
def parse_sources(text: str) -> Spec:
    """Read a source string.

    Raises:
        UserError: it names no source, or two of one base name, by which their rows could not be told apart.
    """
    lines = [line for line in text.split("\n") if line]
    places = [line for line in lines if not line.startswith(ALLOW)]
    if not places:
        raise UserError("there is no source", where=text, fix="give a folder of videos")
    sources: dict[str, str] = {}
    for place in places:
        name = base_name(place)
        if name in sources:
            raise UserError(
                f"two sources are called {name!r}",
                where=f"{sources[name]} and {place}",
                fix="rename one: rows are named by their source",
            )
        sources[name] = place
    return Spec(sources, tuple(line.removeprefix(ALLOW) for line in lines if line.startswith(ALLOW)))


def base_name(source: str) -> str:
    """Return what a source is called: the last step of its path, of a pattern's the last before it."""
    place = source.partition(ZIP_FOLDER)[0]
    if not place.startswith("s3://"):
        place = os.path.abspath(pattern_root(place) if is_pattern(place) else place)
    return place.rstrip("/").rpartition("/")[2]


def is_pattern(place: str) -> bool:
    """Say whether a path is a pattern: it has wildcards, and no file or folder is called like that."""
    return glob.has_magic(place) and not os.path.lexists(place)


def pattern_root(pattern: str) -> Path:
    """Return the folder above a pattern's first wildcard."""
    steps = Path(pattern).parts
    first = next(number for number, step in enumerate(steps) if glob.has_magic(step))
    return Path(*steps[:first])
