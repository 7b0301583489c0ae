"""The file of a clip that was probed.

A stage's output is named by what the clips hold, not by where they lay. So a stage that is about to decode a
clip first makes sure that the source still holds it: otherwise another file's pictures, or none, would stand
under the clip's name for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.media.sources.cache import LocalCopies
from share4video.media.sources.listing import possible_sources
from share4video.media.sources.place import NOT_ALLOWED, Place, hash_of
from share4video.media.sources.spec import parse_sources


@contextmanager
def clip_file(source: str | Path, clip: Mapping[str, Any]) -> Iterator[Path]:
    """Hold a local file with the bytes of a row of table ``clips``, as they were probed.

    A file of this machine is used in place; it is hashed once, also where several clips are spans of it,
    unless it changes. Anything else is copied (``cache.py``), and the copy stays inside the block.

    Args:
        source: the sources that were probed. Where no source's name begins the clip's uri, the one that holds
            the clip's bytes under this uri is taken.

    Raises:
        MediaError: the clip's name leads out of them, or is none that a list may name (``not_allowed``).
        UserError: the file is missing or holds something else, nothing can be read there, or there is no room
            for a copy.
    """
    errors: list[tuple[MediaError, str]] = []
    for found in possible_sources(str(source), clip["source_uri"]):
        with ExitStack() as held:
            where = clip["source_uri"]
            try:
                place = found.find(clip["source_uri"])
                where = place.where
                path = held.enter_context(_as_probed(place, clip["content_hash"]))
            except MediaError as error:
                errors.append((error, where))
                continue
            yield path
            return
    raise _not_found(str(source), clip, errors)


@contextmanager
def _as_probed(place: Place, wanted: str) -> Iterator[Path]:
    """Hold a local file with the bytes of hash ``wanted``. Raises MediaError where the place has others."""
    if place.path is None:
        with LocalCopies.of_environment().held(wanted, place) as path:
            yield path
        return
    if hash_of(place.path) != wanted:
        raise MediaError("unreadable", "the file of this name holds something else")
    yield place.path


def _not_found(
    source: str, clip: Mapping[str, Any], errors: Sequence[tuple[MediaError, str]]
) -> MediaError | UserError:
    """Return the error of a clip that no source holds: the row's fault where none may be asked for its name.

    Args:
        errors: what each source said and where it looked, the one that the clip's uri names first.
    """
    error, where = errors[0]
    refused = error.reason == NOT_ALLOWED
    names = parse_sources(source).sources
    name = clip["source_uri"].partition("/")[0]
    if len(names) > 1 and name not in names:
        refused = all(each.reason == NOT_ALLOWED for each, _ in errors)
        error, where = MediaError(NOT_ALLOWED, f"no source is called {name!r}"), clip["source_uri"]
    if refused:
        return error
    return UserError(
        f"the source does not hold clip {clip['clip_id']} as it was probed, {error.sentence}",
        where=where,
        fix="give the source that was probed, or start again with this one",
    )
