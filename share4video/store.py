"""The content-addressed store: one interface over a local folder and an S3 prefix."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from share4video.errors import UserError


class Store(ABC):
    """Keys are POSIX paths below the root. Every put is atomic: a reader sees all of it or nothing."""

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
        """Yield the keys below ``prefix`` in lexical order."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove ``key``; missing is fine."""

    @abstractmethod
    def download(self, key: str, target: Path) -> None:
        """Stream ``key`` into the file ``target``. Raises KeyError where it is missing."""

    @abstractmethod
    def upload(self, source: Path, key: str) -> None:
        """Stream the file ``source`` to ``key``, atomically."""


class LocalStore(Store):
    """A folder. Writes go to a temporary file beside the target and are renamed over it."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the store folder: {error.strerror}", where=str(root), fix="give a writable folder"
            ) from error

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key)
        if parts.is_absolute() or ".." in parts.parts:
            raise ValueError(f"store key leaves the store: {key!r}")
        return self.root / parts

    def url(self, key: str) -> str:
        return str(self._path(key))

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    def _stage(self, path: Path, data: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return Path(name)

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        os.replace(self._stage(path, data), path)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        staged = self._stage(path, data)
        try:
            os.link(staged, path)  # link(2) fails where the name exists: the one atomic create-with-content
        except FileExistsError:
            return False
        finally:
            staged.unlink()
        return True

    def list(self, prefix: str) -> Iterator[str]:
        base = self._path(prefix)
        if not base.is_dir():
            return
        found = [p for p in base.rglob("*") if p.is_file() and not p.name.startswith(".tmp-")]
        yield from sorted(p.relative_to(self.root).as_posix() for p in found)

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def download(self, key: str, target: Path) -> None:
        source = self._path(key)
        if not source.is_file():
            raise KeyError(key)
        with source.open("rb") as reader, target.open("wb") as writer:
            while block := reader.read(1 << 20):
                writer.write(block)

    def upload(self, source: Path, key: str) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
        with source.open("rb") as reader, os.fdopen(handle, "wb") as writer:
            while block := reader.read(1 << 20):
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
        os.replace(name, path)
