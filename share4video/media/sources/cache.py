"""Local copies of files that lie elsewhere, for the decoder, in a folder of bounded size.

A copy is named by the SHA-256 of its bytes and appears under that name only when it is whole. Whoever uses
one holds a shared lock on it, so that it stays; the least recently used of the others go when room is needed.
Any number of processes share the folder: it is changed under the lock of one file, and a lock dies with its
process.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.media.sources.place import Place

FOLDER_VARIABLE = "SHARE4VIDEO_CACHE"
BYTES_VARIABLE = "SHARE4VIDEO_CACHE_BYTES"
DEFAULT_BYTES = 16 << 30
WAIT_FOR_ROOM_S = 3600.0  # copies are in use while a file is probed and split, which is bounded by less
_BLOCK_BYTES = 1 << 20
_COPY = re.compile(r"[0-9a-f]{64}")
_PARTIAL = ".partial-"

# Copies whose bytes this process has checked, by name, inode and size; nobody writes into a copy.
_checked: set[tuple[str, int, int]] = set()
_checked_lock = threading.Lock()


@dataclass(frozen=True)
class Copy:
    """A local copy in use.

    Attributes:
        path: where it is.
        content_hash: SHA-256 of its bytes.
        bytes: its size.
    """

    path: Path
    content_hash: str
    bytes: int


class LocalCopies:
    """The folder of copies.

    Args:
        folder: made if it is missing.
        max_bytes: of all copies together, those being written included.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        with self._written():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @classmethod
    def of_environment(cls) -> LocalCopies:
        """Open the folder ``SHARE4VIDEO_CACHE`` names, of at most ``SHARE4VIDEO_CACHE_BYTES`` bytes.

        Raises:
            UserError: the bound is no number, or the folder cannot be made or is somebody else's.
        """
        given = os.environ.get(FOLDER_VARIABLE)
        folder = Path(given) if given else Path(tempfile.gettempdir(), f"share4video-cache-{os.getuid()}")
        text = os.environ.get(BYTES_VARIABLE, str(DEFAULT_BYTES))
        if not text.isdecimal() or int(text) < 1:
            raise UserError("not a number of bytes", where=f"{BYTES_VARIABLE}={text}", fix="give a number")
        copies = cls(folder, int(text))
        if not given and folder.lstat().st_uid != os.getuid():  # anybody may make a folder of this name
            raise UserError(
                "the folder for local copies belongs to somebody else",
                where=str(folder),
                fix=f"name another in {FOLDER_VARIABLE}",
            )
        return copies

    @contextmanager
    def held(self, wanted: str, place: Place) -> Iterator[Path]:
        """Hold a copy of the bytes with the content hash ``wanted``, read from ``place`` unless it is here.

        Raises:
            MediaError: the place cannot be read, or holds something else.
            UserError: there is no room for a copy, or it cannot be written.
        """
        with self._here(wanted) as path:
            if path is not None:
                yield path
                return
        with self.added(place) as copy:
            if copy.content_hash != wanted:
                raise MediaError("unreadable", "the file of this name holds something else")
            yield copy.path

    @contextmanager
    def added(self, place: Place, max_bytes: int | None = None) -> Iterator[Copy]:
        """Copy ``place`` and hold the copy.

        Args:
            max_bytes: a file that turns out longer is refused, whatever size it announces.

        Raises:
            MediaError: the place cannot be read, or goes over ``max_bytes``.
            UserError: there is no room for a copy, or it cannot be written.
        """
        announced = place.size() or 0
        bound = self.max_bytes if max_bytes is None else max_bytes
        if announced > bound:
            raise self._too_large(announced, bound, place, given=max_bytes is not None)
        with ExitStack() as room:
            file = room.enter_context(self._reserved(announced, place))
            found, size = self._fill(file, place, bound, given=max_bytes is not None)
            path = self.folder / found
            while True:
                with self._here(found) as present:
                    if present is not None:
                        room.close()
                        yield Copy(present, found, size)
                        return
                if self._named(file, path, grown=size > announced):
                    break
            with _checked_lock:
                _checked.add((found, os.fstat(file.fileno()).st_ino, size))
            yield Copy(path, found, size)

    def _named(self, file: BinaryIO, path: Path, *, grown: bool) -> bool:
        """Let the finished file appear as ``path``, unless another did so before; say whether it did."""
        with self._alone():
            if path.exists():
                return False
            with self._written():
                fcntl.flock(file, fcntl.LOCK_SH)
                _touch(file)
                os.rename(file.name, path)
            if grown:  # beyond what room was made for
                self._make_room(0)
        return True

    @contextmanager
    def _here(self, name: str) -> Iterator[Path | None]:
        """Hold the copy called ``name``, or yield None where there is none or it was damaged."""
        path = self.folder / name
        try:
            file = path.open("rb")
        except FileNotFoundError:
            yield None
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)
            status = os.fstat(file.fileno())
            key = (name, status.st_ino, status.st_size)
            if not _is_at(path, status) or (key not in _checked and _hash_of(file) != name):
                with self._alone(), suppress(FileNotFoundError):
                    if _is_at(path, status):
                        path.unlink()  # damaged, as after a power cut
                yield None
                return
            with _checked_lock:
                _checked.add(key)
            _touch(file)
            yield path

    def _fill(self, file: BinaryIO, place: Place, bound: int, *, given: bool) -> tuple[str, int]:
        """Write the place's bytes to ``file``; return their hash and number."""
        digest, size = hashlib.sha256(), 0
        with closing(place.open()) as reader:
            while block := reader.read(_BLOCK_BYTES):
                size += len(block)
                if size > bound:
                    raise self._too_large(None, bound, place, given=given)
                digest.update(block)
                with self._written():
                    file.write(block)
        with self._written():
            file.flush()
            file.truncate(size)
        return digest.hexdigest(), size

    @contextmanager
    def _reserved(self, size: int, place: Place) -> Iterator[BinaryIO]:
        """Hold a new file of ``size`` empty bytes, which take no disk yet but count from now on.

        Raises:
            UserError: everything else is in use, and stays so.
        """

        def attempt() -> BinaryIO | None:
            with self._alone():
                if not self._make_room(size):
                    return None
                with self._written(), ExitStack() as undone:
                    partial = self.folder / f"{_PARTIAL}{uuid.uuid4().hex}"
                    made = undone.enter_context(partial.open("xb"))
                    undone.callback(partial.unlink)
                    fcntl.flock(made, fcntl.LOCK_EX)
                    made.truncate(size)  # before another process makes room for its own
                    undone.pop_all()
                return made

        waiting = Retrying(
            retry=retry_if_result(lambda made: made is None),
            stop=stop_after_delay(WAIT_FOR_ROOM_S),
            wait=wait_fixed(0.1),
        )
        try:
            file = waiting(attempt)
        except RetryError:
            raise UserError(
                f"there is no room for a copy of {size} bytes beside those in use",
                where=place.where,
                fix=f"raise {BYTES_VARIABLE}, now {self.max_bytes}",
            ) from None
        assert file is not None
        partial = Path(file.name)
        try:
            yield file
        finally:
            partial.unlink(missing_ok=True)
            with suppress(OSError):  # what did not fit on the disk while it was written does not fit now
                file.close()

    def _make_room(self, size: int) -> bool:
        """Let the least recently used copies go until ``size`` more bytes fit; say whether they do."""
        found = []
        for entry in self.folder.iterdir():
            with suppress(FileNotFoundError):  # a file that was being written goes when that fails
                if _is_copy(entry) or entry.name.startswith(_PARTIAL):
                    found.append((_is_copy(entry), entry.stat(), entry))
        total = sum(status.st_size for _, status, _ in found) + size
        # What a killed process left half written goes first.
        for finished, status, entry in sorted(found, key=lambda f: (f[0], f[1].st_mtime_ns, f[2].name)):
            if total > self.max_bytes or not finished:
                total -= status.st_size if _let_go(entry) else 0
        return total <= self.max_bytes

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one that adds names to the folder or takes them away."""
        with self._written():
            lock = (self.folder / ".lock").open("wb")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write local copies: {error.strerror}",
                where=str(self.folder),
                fix=f"free space or name another folder in {FOLDER_VARIABLE}",
            ) from error

    def _too_large(self, size: int | None, bound: int, place: Place, *, given: bool) -> Exception:
        """Return the error of a file over ``bound``; ``size`` is None where it was not read to its end."""
        if given and bound <= self.max_bytes:
            what = "the file" if size is None else f"the file of {size} bytes"
            return MediaError(
                "too_large",
                f"{what} is over the {bound} bytes allowed",
                measured=None if size is None else float(size),
                bound=float(bound),
            )
        return UserError(
            f"the file is larger than all local copies together may be, {self.max_bytes} bytes",
            where=place.where,
            fix=f"raise {BYTES_VARIABLE}",
        )


def _is_copy(entry: Path) -> bool:
    return _COPY.fullmatch(entry.name) is not None


def _is_at(path: Path, status: os.stat_result) -> bool:
    with suppress(OSError):
        return os.path.samestat(path.stat(), status)
    return False


def _let_go(entry: Path) -> bool:
    """Delete a file that nobody holds; say whether it is gone."""
    with suppress(FileNotFoundError), entry.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        entry.unlink()
    return True


def _touch(file: BinaryIO) -> None:
    """Note that the file is used now, finer than the clock that file systems use of themselves."""
    now = time.time_ns()
    os.utime(file.fileno(), ns=(now, now))


def _hash_of(file: BinaryIO) -> str:
    return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()
