"""Where the bytes of a row are: the interface, and files of this machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from share4video.media.limits import MediaError
from share4video.media.probe import content_hash

NOT_ALLOWED = "not_allowed"

# A file that is written again, or replaced by another, has another of these.
_Version = tuple[int, int, int, int, int]
_hashes: dict[_Version, str] = {}


class Place(ABC):
    """Bytes that can be read, wherever they are.

    What is wrong with one file is a MediaError. What stops every file, such as missing credentials, is a
    UserError.
    """

    @property
    @abstractmethod
    def where(self) -> str:
        """The place as a person reads it."""

    @property
    def path(self) -> Path | None:
        """The file that can be used in place; None where the bytes must be copied to this machine first."""
        return None

    @abstractmethod
    def size(self) -> int | None:
        """Return the announced size in bytes, or None. Whoever reads must not trust it."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a text that changes with the content, without reading it where the place offers one.

        ``etag:<ETag>:<bytes>`` of an S3 object, ``crc32:<hex>:<bytes>`` of a zip member, ``sha256:<hex>`` of
        everything else, which is read for it.
        """

    @abstractmethod
    def open(self, start: int = 0, length: int | None = None) -> BinaryIO:
        """Open the bytes for reading once, in order; a range of them where the place knows ranges."""


@dataclass(frozen=True)
class LocalFile(Place):
    """A file of this machine, used where it is."""

    file: Path

    @property
    def where(self) -> str:
        return str(self.file)

    @property
    def path(self) -> Path:
        return self.file

    def size(self) -> int:
        try:
            return self.file.stat().st_size
        except OSError as error:
            raise _unreadable(error) from error

    def fingerprint(self) -> str:
        return f"sha256:{hash_of(self.file)}"

    def open(self, start: int = 0, length: int | None = None) -> BinaryIO:
        try:
            file = self.file.open("rb")
            file.seek(start)
        except OSError as error:
            raise _unreadable(error) from error
        return file


def check_inside(uri: str) -> None:
    """Refuse a name that leads out of what it is relative to. Raises MediaError (``not_allowed``)."""
    if uri.startswith("/") or "://" in uri or ".." in uri.split("/"):
        raise MediaError(NOT_ALLOWED, "the name leads out of the source")


def _unreadable(error: OSError) -> MediaError:
    return MediaError("unreadable", f"the file cannot be read: {error.strerror}")


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a local file, hashed once unless it changes.

    Raises:
        MediaError: it cannot be read.
    """
    version = _version(path)  # before it is read: a file that changes meanwhile is read again
    known = _hashes.get(version) if version else None
    found = known or content_hash(path)
    if version:
        _hashes[version] = found
    return found


def _version(path: Path) -> _Version | None:
    try:
        status = path.stat()
    except OSError:
        return None  # `content_hash` says why
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
