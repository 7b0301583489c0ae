"""What every kind of source can do, and the kinds that lie in a folder of this machine."""

from __future__ import annotations

import glob
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from share4video.errors import UserError, reading
from share4video.media.limits import MediaError
from share4video.media.sources.archive import open_archive
from share4video.media.sources.place import NOT_ALLOWED, LocalFile, Place
from share4video.media.sources.row import SourceFile, named
from share4video.media.sources.spec import is_pattern, pattern_root
from share4video.media.sources.tree import Folder, files_below, is_row, member_rows, rows_of


class Source(ABC):
    """One source: its rows, and the place that a row's uri means."""

    @abstractmethod
    def rows(self) -> Iterable[SourceFile]:
        """Return the rows in any order.

        Raises:
            UserError: the source is missing, holds nothing or cannot be read.
        """

    @abstractmethod
    def find(self, uri: str) -> Place:
        """Return where the bytes of a row's uri are, without listing the source.

        Raises:
            MediaError: the uri names nothing that may be read here (``not_allowed``) or nothing that can be.
            UserError: nothing can be read there.
        """


@dataclass(frozen=True)
class FolderSource(Source):
    """Every file below a folder."""

    root: Path
    prefix: str

    def rows(self) -> Iterable[SourceFile]:
        with reading("the source", self.root):  # also a question such as is_dir may not be answered
            if not self.root.is_dir():
                raise UserError("no such folder or file", where=str(self.root), fix="give a folder of videos")
            rows = list(rows_of(self._named(path) for path in files_below(self.root)))
        if not rows:
            raise UserError(
                "there is no video in the folder", where=str(self.root), fix="give a folder of videos"
            )
        return rows

    def find(self, uri: str) -> Place:
        return Folder(self.root).find(uri.removeprefix(self.prefix))

    def _named(self, path: Path) -> tuple[str, Place]:
        return self.prefix + path.relative_to(self.root).as_posix(), LocalFile(path)


@dataclass(frozen=True)
class PatternSource(FolderSource):
    """The files that a pattern matches, and those below the folders that it matches; ``**`` is any depth."""

    pattern: str

    def rows(self) -> Iterable[SourceFile]:
        with reading("the source", self.pattern):
            found: set[Path] = set()
            for match in map(Path, glob.iglob(self.pattern, recursive=True)):
                found.update(files_below(match) if match.is_dir() else [match] if is_row(match) else [])
            rows = list(rows_of(self._named(path) for path in found))
        if not rows:
            raise UserError(
                "the pattern matches no file", where=self.pattern, fix="check it, and quote it in a shell"
            )
        return rows


@dataclass(frozen=True)
class FileSource(Source):
    """One file, which is its only row."""

    path: Path

    def rows(self) -> Iterable[SourceFile]:
        return [named(self.path.name, LocalFile(self.path))]

    def find(self, uri: str) -> Place:
        if uri != self.path.name:
            raise MediaError(NOT_ALLOWED, "the source is a single file of another name")
        return LocalFile(self.path)


@dataclass(frozen=True)
class ArchiveSource(Source):
    """The members of a zip archive, as ``archive.zip/member``."""

    name: str
    place: Place

    def rows(self) -> Iterable[SourceFile]:
        try:
            return member_rows(self.name, self.place)
        except MediaError as error:
            raise UserError(
                error.sentence, where=self.place.where, fix="give a whole zip archive of videos"
            ) from error

    def find(self, uri: str) -> Place:
        archive, _, member = uri.partition("/")
        if archive != self.name:
            raise MediaError(NOT_ALLOWED, "the source is an archive of another name")
        return open_archive(self.place).member(member)


def local_source(place: str, prefix: str) -> Source:
    """Return a folder, a pattern or a single file; one that is missing says so when it is read."""
    if is_pattern(place):
        return PatternSource(pattern_root(place), prefix, place)
    path = Path(place)
    with reading("the source", place):
        return FileSource(path) if path.is_file() else FolderSource(path, prefix)
