"""The file of a clip that was probed.

A stage's output is named by what the clips hold, not by where they lay. So a stage that is about to decode a
clip first makes sure that the source still holds it: otherwise another file's pictures, or none, would stand
under the clip's name for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.media.sources.cache import LocalCopies
from share4video.media.sources.listing import find_source
from share4video.media.sources.place import NOT_ALLOWED, hash_of


@contextmanager
def clip_file(source: str | Path, clip: Mapping[str, Any]) -> Iterator[Path]:
    """Hold a local file with the bytes of a row of table ``clips``, as they were probed.

    A file of this machine is used in place; it is hashed once, also where several clips are spans of it,
    unless it changes. Anything else is copied (``cache.py``), and the copy stays inside the block.

    Args:
        source: the sources that were probed.

    Raises:
        MediaError: the clip's name leads out of them, or is none that a list may name (``not_allowed``).
        UserError: the file is missing or holds something else, nothing can be read there, or there is no room
            for a copy.
    """
    uri = clip["source_uri"]
    where = uri
    with ExitStack() as held:
        try:
            place = find_source(str(source), uri).find(uri)
            where = place.where
            if place.path is None:
                path = held.enter_context(LocalCopies.of_environment().held(clip["content_hash"], place))
            else:
                path = place.path
                if hash_of(path) != clip["content_hash"]:
                    raise MediaError("unreadable", "the file of this name holds something else")
        except MediaError as error:
            if error.reason == NOT_ALLOWED:
                raise
            raise UserError(
                f"the source does not hold clip {clip['clip_id']} as it was probed, {error.sentence}",
                where=where,
                fix="give the source that was probed, or start again with this one",
            ) from error
        yield path
