"""The content-addressed store: one interface over a local folder and an S3 prefix."""

from __future__ import annotations

import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from share4video import store_lock
from share4video.errors import UserError

TEMPORARY_PREFIX = ".tmp-"
BLOCK_BYTES = 1 << 20


class Store(ABC):
    """Keys are POSIX paths below the root. Every put is atomic: a reader sees all of it or nothing.

    A failure the user can mend (full disk, denied, unreachable, no such bucket) is a UserError.
    """

    @staticmethod
    def open(root: str) -> Store:
        """Open ``s3://bucket/prefix`` or a local folder, which is made if it is missing.

        Raises:
            UserError: the scheme is unknown, the bucket is missing or the folder cannot be written.
        """
        if root.startswith("s3://"):
            from share4video.store_s3 import S3Store

            return S3Store(root)
        if "://" in root:
            raise UserError("unknown store scheme", where=root, fix="give a folder or s3://bucket/prefix")
        return LocalStore(Path(root))

    @abstractmethod
    def url(self, key: str) -> str:
        """Return the address of ``key`` that a person or a KFP artifact can carry."""

    @abstractmethod
    def exists(self, key: str) -> bool: ...

    @abstractmethod
    def size(self, key: str) -> int:
        """Return the size of ``key`` in bytes. Raises KeyError where it is missing."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Return the bytes of ``key``. Raises KeyError where it is missing."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` atomically, replacing what was there."""

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write ``data`` unless ``key`` exists; return whether this call wrote it. Safe under races."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys in the folder ``prefix`` and below it, in lexical order; '' is the whole store."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove ``key``; missing is fine."""

    @abstractmethod
    def download(self, key: str, target: Path) -> None:
        """Stream ``key`` into the file ``target``. Raises KeyError where it is missing."""

    @abstractmethod
    def upload(self, source: Path, key: str) -> None:
        """Stream the file ``source`` to ``key``, atomically."""

    def lock(self, key: str, ttl_s: float = store_lock.DEFAULT_TTL_S) -> AbstractContextManager[int]:
        """Hold the lock ``key``, a folder of its own in the store; the context yields its fencing token.

        Waits while a living process holds it; a holder that died is overtaken after ``ttl_s`` seconds, or at
        once where it ran on this host. See ``check_token``.
        """
        return store_lock.hold(self, key, ttl_s)

    def check_token(self, key: str, token: int) -> None:
        """Raise LockLost where the lock ``key`` was given to another holder since ``token``."""
        store_lock.check_token(self, key, token)


def check_key(key: str) -> str:
    """Return ``key`` if every store can hold it: a relative POSIX path without empty, dot or hidden steps.

    Raises:
        ValueError: it is not.
    """
    steps = key.split("/")
    if any(step in ("", ".", "..") or step.startswith(TEMPORARY_PREFIX) for step in steps):
        raise ValueError(f"not a store key: {key!r}")
    if any(char in key for char in "\\\0\n\r"):
        raise ValueError(f"store key with a backslash or a control character: {key!r}")
    return key


class LocalStore(Store):
    """A folder. Writes go to a temporary file beside the target and are renamed over it."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the store folder: {error.strerror}",
                where=str(root),
                fix="give a writable folder",
            ) from error

    def _path(self, key: str) -> Path:
        return self.root / PurePosixPath(check_key(key))

    def url(self, key: str) -> str:
        return str(self._path(key))

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def size(self, key: str) -> int:
        if not self.exists(key):
            raise KeyError(key)
        return self._path(key).stat().st_size

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise KeyError(key) from None

    @contextmanager
    def _staged(self, path: Path, write: Callable[[BinaryIO], object]) -> Iterator[Path]:
        """Yield a synced temporary file beside ``path``; it is gone afterwards unless it was renamed."""
        staged = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with staged.open("xb") as file:
                    write(file)
                    file.flush()
                    os.fsync(file.fileno())
                yield staged
            finally:
                staged.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write to the store: {error.strerror}",
                where=str(path),
                fix="free space or give a writable folder",
            ) from error

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with self._staged(path, lambda file: file.write(data)) as staged:
            os.replace(staged, path)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        if path.exists():
            return False
        with self._staged(path, lambda file: file.write(data)) as staged:
            try:
                os.link(
                    staged, path
                )  # link(2) fails where the name exists: the one atomic create-with-content
            except FileExistsError:
                return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        base = self._path(prefix.rstrip("/")) if prefix else self.root
        found = (
            (Path(folder) / name).relative_to(self.root).as_posix()
            for folder, _, names in os.walk(base)
            for name in names
            if not name.startswith(TEMPORARY_PREFIX)
        )
        yield from sorted(found)

    def delete(self, key: str) -> None:
        with suppress(NotADirectoryError):
            self._path(key).unlink(missing_ok=True)

    def download(self, key: str, target: Path) -> None:
        source = self._path(key)
        if not source.is_file():
            raise KeyError(key)
        shutil.copyfile(source, target)

    def upload(self, source: Path, key: str) -> None:
        path = self._path(key)
        with (
            source.open("rb") as reader,
            self._staged(path, lambda file: shutil.copyfileobj(reader, file, BLOCK_BYTES)) as staged,
        ):
            os.replace(staged, path)
