"""Members of zip archives, read one by one without unpacking: of a file in place, of an S3 object by ranges.

Nothing an archive says of itself is trusted: a member is read no further than its reader allows, and one that
is damaged, encrypted or named twice is refused by itself.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, BinaryIO, cast

from share4video.media.limits import MediaError
from share4video.media.sources.place import LocalFile, Place, check_inside

SUFFIX = ".zip"
MAX_DIRECTORY_BYTES = 64 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, and the lengths of name and extra field at its end
_ENCRYPTED = 0x1
# The others decompress without a bound on memory, and nobody packs videos with them.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError)


def is_archive_name(name: str) -> bool:
    return name.lower().endswith(SUFFIX)


@dataclass(frozen=True)
class Archive:
    """A zip archive and its directory: the members' entries by name, several for a name it holds twice."""

    place: Place
    members: Mapping[str, Sequence[zipfile.ZipInfo]]

    def member(self, name: str) -> ZipMember:
        """Return a member. Raises MediaError where there is none, or none that can be read."""
        check_inside(name)
        entries = self.members.get(name, ())
        if len(entries) != 1:
            count = "no such file" if not entries else "this name more than once"
            raise MediaError("unreadable", f"the archive holds {count}")
        entry = entries[0]
        if entry.flag_bits & _ENCRYPTED:
            raise MediaError("encrypted", "the file is encrypted in its archive")
        if entry.compress_type not in _METHODS:
            raise MediaError("unreadable", "the file is neither stored nor deflated in its archive")
        return ZipMember(self.place, entry)

    @cached_property
    def flat(self) -> Archive:
        """The archive as if all its members lay in no folder."""
        members: dict[str, list[zipfile.ZipInfo]] = {}
        for name, entries in self.members.items():
            members.setdefault(name.rpartition("/")[2], []).extend(entries)
        return Archive(self.place, members)


def open_archive(place: Place) -> Archive:
    """Read an archive's directory; that of an archive that did not change is kept.

    Raises:
        MediaError: the place cannot be read, or holds no zip archive whose directory is whole.
        UserError: nothing can be read there.
    """
    if isinstance(place, LocalFile):
        size = place.size()
        status = place.file.stat()
        return _read_archive(place, size, (status.st_dev, status.st_ino, status.st_mtime_ns))
    return _read_archive(place, place.size() or 0, place.fingerprint())


@lru_cache(maxsize=64)
def _read_archive(place: Place, size: int, version: object) -> Archive:
    members: dict[str, list[zipfile.ZipInfo]] = {}
    try:
        with zipfile.ZipFile(cast(Any, _Ranges(place, size))) as directory:
            for entry in directory.infolist():
                if not entry.is_dir():
                    members.setdefault(entry.filename, []).append(entry)
    except (*_DAMAGED, NotImplementedError, MemoryError) as error:
        raise MediaError("unreadable", "this is no zip archive, or its directory is damaged") from error
    return Archive(place, members)


class _Ranges:
    """As much of a file as `zipfile` needs to read a directory, without a byte more than it asks for."""

    def __init__(self, place: Place, size: int) -> None:
        self._place, self._size = place, size
        self._position, self._spent = 0, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        if self._position < 0:
            raise OSError("before the start")
        return self._position

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        count = left if count < 0 else min(count, left)
        self._spent += count
        if self._spent > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("the directory is too large")
        if not count:
            return b""
        with closing(self._place.open(self._position, count)) as stream:
            block = stream.read(count)
        self._position += len(block)
        return block

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class ZipMember(Place):
    """A member of an archive."""

    archive: Place
    entry: zipfile.ZipInfo

    @property
    def where(self) -> str:
        return f"{self.archive.where}/{self.entry.filename}"

    def size(self) -> int:
        return self.entry.file_size

    def fingerprint(self) -> str:
        return f"crc32:{self.entry.CRC:08x}:{self.entry.file_size}"

    def open(self, start: int = 0, length: int | None = None) -> BinaryIO:
        assert start == 0 and length is None, "a compressed member has no ranges"
        longest_header = _LOCAL_HEADER.size + 2 * 0xFFFF
        stream = self.archive.open(self.entry.header_offset, longest_header + self.entry.compress_size)
        try:
            return cast(BinaryIO, io.BufferedReader(_Member(stream, self.entry)))
        except BaseException:
            stream.close()
            raise


class _Member(io.RawIOBase):
    """A member's bytes; whatever is wrong with it is a MediaError."""

    def __init__(self, stream: BinaryIO, entry: zipfile.ZipInfo) -> None:
        self._stream = stream
        try:
            signature, name, extra = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
            if signature != b"PK\x03\x04":
                raise zipfile.BadZipFile("no member begins here")
            stream.read(name + extra)
            self._member = zipfile.ZipExtFile(cast(Any, _Forward(stream)), "r", entry)
        except _DAMAGED as error:
            raise _damaged() from error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            block = self._member.read(len(buffer))
        except _DAMAGED as error:
            raise _damaged() from error
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Forward:
    """A stream that is only read onwards: `zipfile` must not learn that it could seek."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, count: int) -> bytes:
        return self._stream.read(count)


def _damaged() -> MediaError:
    return MediaError("unreadable", "the file is damaged in its archive")
