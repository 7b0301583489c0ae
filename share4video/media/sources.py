"""The files of a source: which of them are input rows, and where a row's file is.

A source is a folder or a single file. Every regular file below a folder is an input row, whatever it is
called, except sidecar files (``.json`` and ``.txt``: truth, captions, notes beside the clips). A row is named
by its path below the folder, never by where the folder is.

A stage's output is named by what the clips hold, not by where they lay. So a stage that is about to decode a
clip first makes sure that the source still holds it (`clip_path`): otherwise another file's pictures, or
none, would stand under the clip's name for good.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from share4video.errors import UserError, reading
from share4video.media.limits import MediaError
from share4video.media.probe import content_hash

SIDECAR_SUFFIXES = frozenset({".json", ".txt"})

# A file that is written again, or replaced by another, has another of these.
_Version = tuple[int, int, int, int, int]
_hashes: dict[_Version, str] = {}


@dataclass(frozen=True)
class SourceFile:
    """A file of a source.

    Attributes:
        path: where it is.
        uri: its POSIX path below the source; bytes that are not UTF-8 are spelled as ``\\xNN``.
        named_in_utf8: whether ``uri`` is the real name, with which the file can be found again.
    """

    path: Path
    uri: str
    named_in_utf8: bool


def list_sources(source: str) -> list[SourceFile]:
    """Return the files of a source in the order of their names.

    Links to files are followed, links to folders are not.

    Raises:
        UserError: the source is missing or cannot be read, or there is no file in it.
    """
    root = Path(source)
    with reading("the source", source):  # also a question such as is_file may not be answered
        if root.is_file():
            return [_named(root, root.name)]
        if not root.is_dir():
            raise UserError("no such folder or file", where=source, fix="give a folder of videos")
        walk = list(os.walk(root, onerror=_raise))
        paths = [Path(folder, name) for folder, _, names in walk for name in names]
        rows = [path for path in paths if _is_row(path)]
    if not rows:
        raise UserError("there is no video in the folder", where=source, fix="give a folder of videos")
    return sorted((_named(path, path.relative_to(root).as_posix()) for path in rows), key=lambda row: row.uri)


def source_path(source: str | Path, uri: str) -> Path:
    """Return the file that a table's ``source_uri`` names.

    Raises:
        MediaError: the name leads out of the source (tables come from elsewhere too), or is an address.
        UserError: the source cannot be read.
    """
    if "://" in uri:
        raise MediaError("unreadable", "clips are read from a folder, not from an address")
    relative = PurePosixPath(uri)
    if relative.is_absolute() or ".." in relative.parts:
        raise MediaError("unreadable", "the name leads out of the source folder")
    root = Path(source)
    with reading("the source", source):
        return root if root.is_file() and root.name == uri else root / relative


def clip_path(source: str | Path, clip: Mapping[str, Any]) -> Path:
    """Return the file of a row of table ``clips``, which holds what was probed.

    A file is hashed once, also where several clips are spans of it, unless it changes.

    Raises:
        MediaError: the name leads out of the source, or is an address.
        UserError: the file is missing, or holds something else.
    """
    path = source_path(source, clip["source_uri"])
    try:
        found = _hash_of(path)
    except MediaError as error:
        raise _not_as_probed(clip, path, error.sentence) from error
    if found != clip["content_hash"]:
        raise _not_as_probed(clip, path, "the file of this name holds something else")
    return path


def _hash_of(path: Path) -> str:
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


def _not_as_probed(clip: Mapping[str, Any], path: Path, why: str) -> UserError:
    return UserError(
        f"the source does not hold clip {clip['clip_id']} as it was probed, {why}",
        where=str(path),
        fix="give the folder that was probed, or start again with this one",
    )


def _is_row(path: Path) -> bool:
    if path.suffix.lower() in SIDECAR_SUFFIXES:
        return False
    return path.is_file() or (
        path.is_symlink() and not path.exists()
    )  # a dead link is a row that is rejected


def _named(path: Path, name: str) -> SourceFile:
    spelled = os.fsencode(name).decode("utf-8", "backslashreplace")
    return SourceFile(path, spelled, spelled == name)


def _raise(error: OSError) -> None:
    raise error
