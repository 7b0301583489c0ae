"""An input row: one file of a source, or one line of a list."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from share4video.media.limits import MediaError
from share4video.media.probe import file_size
from share4video.media.sources.cache import LocalCopies
from share4video.media.sources.place import Place, hash_of

_ID_LENGTH = 32


@dataclass(frozen=True)
class SourceFile:
    """An input row.

    Attributes:
        uri: its name, which does not depend on where the source is.
        find: returns where its bytes are; raises MediaError where the row names nothing that may be read.
        occurrence: how many rows of the same uri come before it.
        source_id: the id a list gives it.
        licence: the licence a list gives it.
        metadata: the list's other columns as a JSON object with sorted keys.
    """

    uri: str
    find: Callable[[], Place]
    occurrence: int = 0
    source_id: str | None = None
    licence: str | None = None
    metadata: str | None = None

    @property
    def row_id(self) -> str:
        """Hash of the uri, and of the occurrence after the first."""
        text = self.uri if self.occurrence == 0 else f"{self.uri}\0{self.occurrence}"
        return hashlib.sha256(text.encode()).hexdigest()[:_ID_LENGTH]

    @cached_property
    def place(self) -> Place:
        """Where its bytes are, found once.

        Raises:
            MediaError: the row names nothing that may be read.
            UserError: nothing can be read there.
        """
        return self.find()

    def fingerprint(self) -> str:
        """Return a text that changes with the content, in most places without reading it.

        See `Place.fingerprint`: ETag and size of an S3 object, CRC-32 and size of a zip member, the SHA-256
        of a local file, which is read for it.

        Raises:
            MediaError: the row cannot be read.
            UserError: nothing can be read there.
        """
        return self.place.fingerprint()

    def size(self) -> int:
        """Return the announced size in bytes, 0 where there is none; for progress, not for bounds."""
        try:
            return self.place.size() or 0
        except MediaError:
            return 0

    def content_hash(self, *, max_bytes: int) -> str:
        """Read the row and return the SHA-256 of its bytes; of a remote one a local copy is kept.

        Raises:
            MediaError: it cannot be read, is empty, or is over ``max_bytes``, whatever it is said to be.
            UserError: nothing can be read there, or there is no room for a copy.
        """
        place = self.place
        if place.path is not None:
            if file_size(place.path, max_bytes=max_bytes) == 0:
                raise _empty()
            return hash_of(place.path)
        with LocalCopies.of_environment().added(place, max_bytes) as copy:
            if copy.bytes == 0:
                raise _empty()
            return copy.content_hash

    @contextmanager
    def opened(self, content: str) -> Iterator[Path]:
        """Hold a local file with the row's bytes, whose hash is ``content``; it stays inside the block.

        Raises:
            MediaError: the row cannot be read, or holds something else by now.
            UserError: nothing can be read there, or there is no room for a copy.
        """
        place = self.place
        if place.path is not None:
            if hash_of(place.path) != content:
                raise MediaError("unreadable", "the file changed while it was read")
            yield place.path
            return
        with LocalCopies.of_environment().held(content, place) as path:
            yield path


def refused(uri: str, reason: str, sentence: str) -> SourceFile:
    """Return a row of which nothing can be read, and why."""

    def find() -> Place:
        raise MediaError(reason, sentence)

    return SourceFile(uri, find)


def named(name: str, place: Place) -> SourceFile:
    """Return the row of a place; a name that is not UTF-8 is spelled with ``\\xNN`` and refused."""
    spelled = os.fsencode(name).decode("utf-8", "backslashreplace")
    if spelled != name:
        return refused(spelled, "unreadable", "the file's name is not UTF-8")
    return SourceFile(name, lambda: place)


def _empty() -> MediaError:
    return MediaError("not_video", "the file is empty")
