"""Folders of files, here or on S3: what lies below them, and what a name below them means."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from share4video.errors import reading
from share4video.media.limits import MediaError
from share4video.media.sources.archive import is_archive_name, open_archive
from share4video.media.sources.place import NOT_ALLOWED, LocalFile, Place, check_inside
from share4video.media.sources.row import SourceFile, named, refused

SIDECAR_SUFFIXES = frozenset({".json", ".txt"})


class Tree(ABC):
    """A folder or a prefix."""

    @abstractmethod
    def file(self, name: str) -> Place:
        """Return the place of the file ``name``, whether or not there is one."""

    @abstractmethod
    def holds(self, name: str) -> bool:
        """Say whether there is a file ``name``."""

    def find(self, name: str) -> Place:
        """Return the place that a row's name below this tree means: a file, or a member of an archive.

        Raises:
            MediaError: the name leads out of the tree (``not_allowed``), or the archive cannot be read.
            UserError: nothing can be read there.
        """
        check_inside(name)
        slash = name.find("/")
        while slash >= 0:
            head = name[:slash]
            if is_archive_name(head) and self.holds(head):
                return open_archive(self.file(head)).member(name[slash + 1 :])
            slash = name.find("/", slash + 1)
        return self.file(name)


@dataclass(frozen=True)
class Folder(Tree):
    """A folder of this machine."""

    root: Path

    def file(self, name: str) -> LocalFile:
        return LocalFile(self.root / name)

    def holds(self, name: str) -> bool:
        with reading("the source", self.root):
            return (self.root / name).is_file()


def rows_of(found: Iterable[tuple[str, Place]]) -> Iterator[SourceFile]:
    """Yield the rows of files by name: one each, and of an archive one for each of its members.

    Sidecar files (``.json`` and ``.txt``: truth, captions, notes beside the clips) are no rows. An archive
    that cannot be read is one row, which is refused.
    """
    for name, place in found:
        if is_sidecar(name):
            continue
        if not is_archive_name(name):
            yield row_of(name, place)
            continue
        try:
            yield from member_rows(name, place)
        except MediaError as error:
            yield refused(name, error.reason, error.sentence)


def member_rows(name: str, place: Place) -> list[SourceFile]:
    """Return the rows of an archive's members, as ``archive.zip/member``.

    Raises:
        MediaError: the archive cannot be read, or holds no file.
        UserError: nothing can be read there.
    """
    archive = open_archive(place)
    rows = [
        SourceFile(f"{name}/{member}", partial(archive.member, member))
        for member, entries in archive.members.items()
        if not is_sidecar(member)
        for _ in entries
    ]
    if not rows:
        raise MediaError("not_video", "there is no video in the archive")
    return rows


def row_of(name: str, place: Place) -> SourceFile:
    """Return the row of one file."""
    try:
        check_inside(name)  # S3 lets a key hold anything
    except MediaError as error:
        return refused(name, NOT_ALLOWED, error.sentence)
    return named(name, place)


def files_below(root: Path) -> Iterator[Path]:
    """Yield the files below a folder. Links to files are followed, links to folders are not.

    A dead link is yielded, too: it is a row that is refused. Raises OSError where a folder cannot be read.
    """
    for folder, _, names in os.walk(root, onerror=_raise):
        for name in names:
            path = Path(folder, name)
            if is_row(path):
                yield path


def is_row(path: Path) -> bool:
    return path.is_file() or (path.is_symlink() and not path.exists())


def is_sidecar(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SIDECAR_SUFFIXES


def _raise(error: OSError) -> None:
    raise error
