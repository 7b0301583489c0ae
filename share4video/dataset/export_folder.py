"""A folder that is there whole or not at all, and says what it holds.

Everything is written to a hidden folder beside it, which takes its name at the end. ``export.json`` names
what the folder was made from, each file's size and hash, and how many clips went in, came out and were left
out; ``rejects.jsonl`` says which were left out and why. None of it depends on when or where it was written.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from share4video.errors import UserError

INDEX = "export.json"
REJECTS = "rejects.jsonl"
_BLOCK = 1 << 20

Row = Mapping[str, Any]


class ExportFolder:
    """What an export writes to; see `export_folder`.

    Attributes:
        rows_out: how many clips were written; the format counts them.
        counts: what else the format counts, such as samples.
        example: the first clip that was left out, and why.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, dict[str, Any]] = {}
        self._reasons: Counter[str] = Counter()
        self.rows_out = 0
        self.counts: Counter[str] = Counter()
        self.example = ""

    @contextmanager
    def file(self, name: str) -> Iterator[BinaryIO]:
        """Open a new file below the folder; it is hashed as it is written."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            sink = _Hashed(file)
            yield cast(BinaryIO, sink)
        self._files[name] = {"name": name, "bytes": sink.bytes, "sha256": sink.digest.hexdigest()}

    def put(self, name: str, data: bytes) -> None:
        """Write a file unless it is there; equal names must mean equal bytes."""
        if name not in self._files:
            with self.file(name) as file:
                file.write(data)

    def copy(self, name: str, source: Path) -> None:
        """Copy a file block by block, unless it is there."""
        if name not in self._files:
            with self.file(name) as file, source.open("rb") as reader:
                shutil.copyfileobj(reader, file, _BLOCK)

    def rename(self, old: str, new: str) -> None:
        """Give a file its final name."""
        os.replace(self._root / old, self._root / new)
        self._files[new] = {**self._files.pop(old), "name": new}

    def size_and_hash(self, name: str) -> tuple[int, str]:
        """Return a written file's size in bytes and SHA-256."""
        return self._files[name]["bytes"], self._files[name]["sha256"]

    def md5(self, name: str) -> str:
        """Return a written file's MD5, which some indices want; it is read for it."""
        with (self._root / name).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    def leave_out(self, clip: Row, reason: str, sentence: str) -> None:
        """Say why a clip is not in the export."""
        self._reasons[reason] += 1
        self.example = self.example or f"{clip['source_uri']}: {sentence}"
        names = {name: clip[name] for name in ("clip_id", "source_uri", "source_id")}
        line = json.dumps({**names, "reason": reason, "sentence": sentence}, ensure_ascii=False)
        with (self._root / REJECTS).open("ab") as file:
            file.write(line.encode() + b"\n")

    def finish(self, recipe: Mapping[str, Any], rows_in: int) -> dict[str, Any]:
        """Write the index and return it.

        Raises:
            RuntimeError: a clip was neither written nor left out.
        """
        rejects = dict(sorted(self._reasons.items()))
        if rows_in != self.rows_out + sum(rejects.values()):
            raise RuntimeError(f"{rows_in} clips in, {self.rows_out} out and {rejects} left out")
        index = {
            **recipe,
            "rows_in": rows_in,
            "rows_out": self.rows_out,
            "rejects": rejects,
            "counts": dict(sorted(self.counts.items())),
            "files": [self._files[name] for name in sorted(self._files)],
        }
        text = json.dumps(index, indent=1, ensure_ascii=False, allow_nan=False)
        (self._root / INDEX).write_text(text + "\n", encoding="utf-8")
        return index


class _Hashed:
    """A file that is written forwards, and its hash."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest, self.bytes = file, hashlib.sha256(), 0
        self.closed = False

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.bytes += memoryview(data).nbytes
        return self._file.write(data)

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        self._file.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        pass


@contextmanager
def export_folder(target: Path) -> Iterator[ExportFolder]:
    """Yield a folder to write to, which becomes ``target`` when the block ends without an error.

    What a killed export left beside it is removed. A link to a folder is followed.

    Raises:
        UserError: ``target`` is a file or a folder that is not empty, the folder cannot be made, or what the
            block reads or writes cannot be, such as on a full disk.
    """
    where, target = str(target), Path(os.path.realpath(target))
    with ExitStack() as holding:
        try:
            if target.exists() and not target.is_dir():
                raise UserError("this is a file, no folder", where=where, fix="name another, or delete it")
            if target.is_dir() and any(target.iterdir()):
                raise UserError("the folder is not empty", where=where, fix="name another, or delete it")
            target.parent.mkdir(parents=True, exist_ok=True)
            with _held(target.parent):  # else a folder could be swept away before it is held
                _sweep(target)
                root = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
                holding.enter_context(_held(root))
                holding.callback(shutil.rmtree, root, ignore_errors=True)  # before it is let go
        except OSError as error:
            raise UserError(
                f"cannot make the folder: {error.strerror}", where=where, fix="name another folder"
            ) from error
        with finishing(where):
            yield ExportFolder(root)
            root.chmod(0o755)
            os.replace(root, target)


@contextmanager
def finishing(where: str) -> Iterator[None]:
    """Say in a sentence what the file system complains of while an export is written to ``where``.

    Raises:
        UserError: there was an OSError, such as that of a full disk.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot finish the export: {error.strerror or error}",
            where=where,
            fix="free space, name another folder or check what it is made from, and start it again",
        ) from error


def read_index(target: Path) -> dict[str, Any] | None:
    """Return what an export says of itself; None where there is none."""
    try:
        index = json.loads((target / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return index if isinstance(index, dict) else None


def _prefix(target: Path) -> str:
    return f".{target.name}.partial-"


def _sweep(target: Path) -> None:
    """Remove what exports to this folder left when they were killed: nobody holds it any more."""
    for left in target.parent.glob(f"{glob.escape(_prefix(target))}*"):
        with suppress(BlockingIOError), _held(left, wait=False):  # unless another export writes it now
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _held(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock on a folder. Raises BlockingIOError where it is not to be waited for."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)
