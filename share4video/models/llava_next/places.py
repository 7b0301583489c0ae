"""Where a checkpoint comes from and where it goes: a local folder, or a prefix on S3.

A local checkpoint appears under its name at once, when all of it is there. On S3, where nothing can be
renamed, ``config.json`` comes last: without it no loader takes the rest for a model.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from share4video.errors import UserError, reading
from share4video.store import Store
from share4video.whole_folder import own_folder
from share4video.work import WORK_VARIABLE, work_folder

RECORD = "CONVERSION.json"
_STARTED = "CONVERTING.json"
_LAST = "config.json"
_SHARD = re.compile(r"model(-\d{5}-of-\d{5}\.safetensors|\.safetensors|\.safetensors\.index\.json)")
_SUFFIXES = (".json", ".safetensors", ".bin")

Progress = Callable[[str, int, int], None]


@contextmanager
def fetched(source: str, tell: Progress) -> Iterator[Path]:
    """Yield the checkpoint ``source`` as a local folder; one on S3 is copied for as long as the block lasts.

    Args:
        tell: called with what is being done, bytes done and bytes in all.

    Raises:
        UserError: there is no such folder, or no room for a copy.
    """
    if not source.startswith("s3://"):
        folder = Path(os.path.realpath(os.path.expanduser(source)))
        with reading("the checkpoint", folder):
            if not folder.is_dir():
                raise UserError(
                    "no such checkpoint folder",
                    where=source,
                    fix="check the path; a model on a hub is downloaded first, and its folder is named",
                )
        yield folder
        return
    with own_folder(work_folder("convert") / f"source-{_short_hash(source)}", source) as folder:
        store = Store.open(source)
        keys = [key for key in store.list("") if _is_part(key)]
        if any(key.endswith(".safetensors") and "/" not in key for key in keys):
            keys = [key for key in keys if not key.startswith("pytorch_model")]
        if not keys:
            raise UserError("there is no checkpoint", where=source, fix="check the address")
        sizes = {key: store.size(key) for key in keys}
        _check_room(folder, sum(sizes.values()))
        done = 0
        for key, size in sizes.items():
            tell("fetching", done, sum(sizes.values()))
            target = folder / key
            target.parent.mkdir(parents=True, exist_ok=True)
            store.download(key, target)
            done += size
        yield folder


def _is_part(key: str) -> bool:
    folder, _, name = key.rpartition("/")
    return folder in ("", "vision_tower") and name.endswith(_SUFFIXES)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"this takes {needed / 1e9:.1f} GB on a disk with {free / 1e9:.1f} GB free",
            where=str(folder),
            fix=f"make room there; {WORK_VARIABLE} names the folder for copies from and to S3",
        )


class Destination(Protocol):
    """A place for one converted checkpoint."""

    def record(self) -> dict[str, Any] | None:
        """Return the record of the finished conversion that is there, or None where nothing is.

        Raises:
            UserError: something else is there.
        """

    def begin(self, total_bytes: int, largest_bytes: int) -> AbstractContextManager[Path]:
        """Return a context that yields an empty folder to write in, ours alone on this machine until it ends.

        Args:
            total_bytes: of all files to come.
            largest_bytes: of the largest of them.
        """

    def take(self, file: Path) -> None:
        """Accept a finished file of that folder; it need not stay there."""

    def publish(self, folder: Path) -> None:
        """Make what was taken, and the rest of the folder, the checkpoint."""


def open_destination(address: str) -> Destination:
    """Return the place for ``address``. Raises UserError where it cannot be reached."""
    return _OnS3(address) if address.startswith("s3://") else _LocalFolder(address)


class _LocalFolder:
    def __init__(self, address: str) -> None:
        self._path = Path(os.path.abspath(os.path.expanduser(address)))

    def record(self) -> dict[str, Any] | None:
        with reading("the destination", self._path):
            if not os.path.lexists(self._path):
                return None
            if self._path.is_dir() and not any(self._path.iterdir()):
                return None
            found = self._path / RECORD
            if self._path.is_dir() and found.is_file() and (self._path / _LAST).is_file():
                return _parse(found.read_bytes(), str(self._path))
        raise _taken(str(self._path))

    @contextmanager
    def begin(self, total_bytes: int, largest_bytes: int) -> Iterator[Path]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the folder: {error.strerror}", where=str(self._path.parent), fix="name another"
            ) from error
        beside = self._path.with_name(f".{self._path.name}.converting")
        with own_folder(beside, str(self._path)) as folder:
            _check_room(folder, total_bytes)
            yield folder

    def take(self, file: Path) -> None:
        pass

    def publish(self, folder: Path) -> None:
        for path in (*folder.iterdir(), folder):
            _sync(path)
        try:
            os.replace(folder, self._path)
            _sync(self._path.parent)
        except OSError as error:
            raise _taken(str(self._path)) from error


class _OnS3:
    def __init__(self, address: str) -> None:
        self._address, self._store = address, Store.open(address)

    def record(self) -> dict[str, Any] | None:
        keys = set(self._store.list(""))
        if RECORD in keys and _LAST in keys:
            self._store.delete(_STARTED)  # killed between the two last steps
            return _parse(self._store.get(RECORD), self._address)
        if not keys or _STARTED in keys:
            return None
        raise _taken(self._address)

    @contextmanager
    def begin(self, total_bytes: int, largest_bytes: int) -> Iterator[Path]:
        with own_folder(
            work_folder("convert") / f"target-{_short_hash(self._address)}", self._address
        ) as folder:
            _check_room(folder, largest_bytes)
            # Says of what lies there that it is ours, should this process be killed.
            self._store.put(_STARTED, b"{}\n")
            yield folder

    def take(self, file: Path) -> None:
        self._store.upload(file, file.name)
        file.unlink()

    def publish(self, folder: Path) -> None:
        rest = sorted(file for file in folder.iterdir() if file.name != _LAST)
        kept = _shards_named(folder) | {file.name for file in rest}
        for file in rest:
            self._store.upload(file, file.name)
        for key in list(self._store.list("")):
            if _SHARD.fullmatch(key) and key not in kept:  # of a killed conversion with other shards
                self._store.delete(key)
        self._store.upload(folder / _LAST, _LAST)
        self._store.delete(_STARTED)


def _shards_named(folder: Path) -> set[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return {"model.safetensors"}
    return set(json.loads(index.read_bytes())["weight_map"].values())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _taken(where)
    return value


def _taken(where: str) -> UserError:
    return UserError(
        "the destination holds something else already", where=where, fix="name a new one, or remove it first"
    )
