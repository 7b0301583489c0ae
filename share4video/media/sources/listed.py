"""A list as a source: its lines are the rows, and what they may name is bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from share4video.errors import UserError, reading
from share4video.media.limits import MediaError
from share4video.media.sources import allow as allowed
from share4video.media.sources.cache import LocalCopies
from share4video.media.sources.lists import read_list
from share4video.media.sources.place import NOT_ALLOWED, LocalFile, Place
from share4video.media.sources.released import find_released, is_released, read_released
from share4video.media.sources.row import SourceFile, refused
from share4video.media.sources.source import Source
from share4video.media.sources.tree import Tree


@dataclass(frozen=True)
class AllowedFiles(Tree):
    """Files of this machine that a list may name, links resolved.

    Attributes:
        home: the list's folder; None where the list is not on this machine.
        start: what names are relative to: the empty text for ``home``, or a slash.
    """

    home: Path | None
    allow: tuple[str, ...]
    start: str = ""

    def file(self, name: str) -> LocalFile:
        return LocalFile(allowed.local_path(self.start + name, self.home, self.allow))

    def holds(self, name: str) -> bool:
        path = allowed.local_path(self.start + name, self.home, self.allow)
        with reading("the source", path):
            return path.is_file()


@dataclass(frozen=True)
class ListSource(Source):
    """A list of uris, or the released jsonl.

    Attributes:
        name: the list's file name.
        place: where the list is.
        allow: prefixes that it may name beside its own folder.
        zip_folder: where a released jsonl's archives are, where they are not beside it.
    """

    name: str
    place: Place
    prefix: str
    allow: tuple[str, ...]
    zip_folder: Tree | None = None

    def rows(self) -> Iterable[SourceFile]:
        try:
            with self._local() as path, reading("the list", self.place.where):
                released = self._is_released()
                lines = list(read_released(path)) if released else read_list(path, self.place.where)
        except MediaError as error:
            raise UserError(error.sentence, where=self.place.where, fix="check the list's address") from error
        if not lines:
            raise UserError(
                "there is no row in the list", where=self.place.where, fix="give a list with rows"
            )
        find = self._find_released if released else self._find_listed
        for line in lines:
            if line.reason:
                yield refused(f"{self.prefix}{self.name}:{line.number}", line.reason, line.sentence)
            else:
                yield SourceFile(
                    self.prefix + line.uri,
                    partial(find, line.uri),
                    source_id=line.source_id,
                    licence=line.licence,
                    metadata=line.metadata,
                )

    def find(self, uri: str) -> Place:
        inside = uri.removeprefix(self.prefix)
        return self._find_released(inside) if self._is_released() else self._find_listed(inside)

    def _is_released(self) -> bool:
        return self.name.lower().endswith(".jsonl") and is_released(self.place)

    def _find_released(self, uri: str) -> Place:
        return find_released(uri, self._home(), self.zip_folder)

    def _find_listed(self, uri: str) -> Place:
        try:
            return self._permitted(uri)
        except MediaError as error:
            raise allowed.not_allowed(uri) if error.reason == NOT_ALLOWED else error from None

    def _permitted(self, uri: str) -> Place:
        if uri.startswith("s3://"):
            return self._object(uri)
        if uri.startswith("https://"):
            from share4video.media.sources.https import HttpsFile

            allowed.web_prefix(uri, self.allow)
            return HttpsFile(uri, self.allow)
        if "://" in uri:
            raise allowed.not_allowed(uri)
        if uri.startswith("/"):
            home = self.place.path.parent if self.place.path is not None else None
            return AllowedFiles(home, self.allow, start="/").find(uri[1:])
        return self._home().find(uri)

    def _home(self) -> Tree:
        if self.place.path is not None:
            return AllowedFiles(self.place.path.parent, self.allow)
        from share4video.media.sources.s3 import S3Tree, split_address

        bucket, key = split_address(self._prefix_on_s3())
        return S3Tree(bucket, key)

    def _object(self, uri: str) -> Place:
        from share4video.media.sources.s3 import S3Tree, split_address

        allowed.check_object(uri, None if self.place.path is not None else self._prefix_on_s3(), self.allow)
        bucket, key = split_address(uri)
        return S3Tree(bucket, "").find(key)

    def _prefix_on_s3(self) -> str:
        return self.place.where.rpartition("/")[0] + "/"

    @contextmanager
    def _local(self) -> Iterator[Path]:
        if self.place.path is not None:
            yield self.place.path
            return
        with LocalCopies.of_environment().added(self.place) as copy:
            yield copy.path
