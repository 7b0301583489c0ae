"""Answers already paid for: a file of lines that a killed run reads and goes on from.

An answer is appended before anything is made of it, so the calls a kill costs are those in flight. Failures
are not kept, refusals neither: by the next run the engine may have been mended or set up anew. An answer to
what is then asked in other words, after another answer, stays unused, but it was paid for. The file
belongs to one shard of one stage output (the name is a hash of the output's address, which depends on
inputs, configuration, engine and prompts) and is removed once the shard is committed.

A line is the CRC-32 of what follows, in eight hex digits, a space, and a JSON object: damage anywhere costs
the calls whose lines it touches and no others. Where each answer lies is kept in a scratch database, made
anew at every opening, so that memory does not grow with the number of answers.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from share4video.captioning.client import MAX_ANSWER_BYTES, Completion
from share4video.captioning.spending import Spending
from share4video.errors import UserError
from share4video.scratch import ScratchDatabase
from share4video.work import work_folder

_LOCK_TIMEOUT_S = 30.0
_KEPT_S = 30 * 86400.0
_MAX_LINE_BYTES = 8 * MAX_ANSWER_BYTES  # JSON writes a character in six bytes at most
_LINES_AT_ONCE = 1000

Place = tuple[bytes, int, int]  # digest of the call's name, where its line begins, the line's length


class _Line(BaseModel):
    """One call's answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conversation: str
    call: str
    engine: str = ""
    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def completion(self) -> Completion:
        return Completion(self.text, self.finish_reason, self.prompt_tokens, self.completion_tokens)


class Journal:
    """The answers to one shard's calls. Made by `open_journal`; the file has one writer at a time.

    Attributes:
        spent: what all of them took, by engine.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor
        self.spent = Spending()
        self._index = ScratchDatabase(
            path.with_suffix(".index"),
            "CREATE TABLE answers (name BLOB PRIMARY KEY, begins INTEGER, size INTEGER) WITHOUT ROWID",
        )
        self._end = 0
        self._read()

    def __len__(self) -> int:
        return int(self._index.execute("SELECT count(*) FROM answers")[0][0])

    def get(self, conversation: str, call: str) -> Completion | None:
        """Return the answer to a call, None where there is none that can be read."""
        places = self._index.execute(
            "SELECT begins, size FROM answers WHERE name = ?", (_name(conversation, call),)
        )
        for begins, size in places:
            line = _parsed(os.pread(self._descriptor, size, begins))
            if line is not None and (line.conversation, line.call) == (conversation, call):
                return line.completion()
        return None

    def record(self, conversation: str, call: str, answer: Completion, engine: str = "") -> None:
        """Append an answer. ``engine`` is the name its tokens are counted under.

        Raises:
            UserError: the disk is full.
        """
        line = _Line(conversation=conversation, call=call, engine=engine, **vars(answer))
        data = line.model_dump_json(exclude_defaults=True).encode()
        data = b"%08x %s\n" % (zlib.crc32(data), data)
        self._write(data)
        self._add([(_name(conversation, call), self._end, len(data))])
        self._end += len(data)
        self.spent.add(engine, answer)

    def remove(self) -> None:
        """Remove the file: what it held is committed."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        self._index.close()

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            written = 0
        if written < len(data):  # what is there of the line is cut off when the journal is next opened
            raise UserError(
                "cannot write the journal: the disk is full", where=str(self.path), fix="make room"
            )

    def _add(self, places: list[Place]) -> None:
        self._index.execute_many("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", places)

    def _read(self) -> None:
        """Read what is there and cut off a last line that a kill left unfinished."""
        places: list[Place] = []
        begins = 0
        with self.path.open("rb") as file:
            while data := file.readline(_MAX_LINE_BYTES):
                line = _parsed(data)
                if line is not None:  # else damaged, as after a power cut: that call is made again
                    places.append((_name(line.conversation, line.call), begins, len(data)))
                    self.spent.add(line.engine, line.completion())
                if len(places) == _LINES_AT_ONCE:
                    self._add(places)
                    places = []
                begins += len(data)
                if data.endswith(b"\n"):
                    self._end = begins
        self._add(places)
        os.ftruncate(self._descriptor, self._end)


def _parsed(data: bytes) -> _Line | None:
    """Read a line; None where it is not as it was written."""
    checksum, _, text = data[:-1].partition(b" ")
    if not data.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        return _Line.model_validate_json(text)
    except ValidationError:
        return None


def _name(conversation: str, call: str) -> bytes:
    return hashlib.sha256(f"{conversation}\n{call}".encode()).digest()[:16]


@contextmanager
def open_journal(address: str) -> Iterator[Journal]:
    """Open the journal of the shard output at ``address``, alone.

    Raises:
        UserError: another living process on this machine keeps it open.
    """
    name = hashlib.sha256(address.encode()).hexdigest()[:32]
    folder = work_folder("journals")
    _drop_forgotten(folder)
    path = folder / f"{name}.jsonl"
    descriptor = _open_locked(path)
    try:
        journal = Journal(path, descriptor)
        try:
            yield journal
        finally:
            journal.close()
    finally:
        os.close(descriptor)


def forget(conversations: Collection[str]) -> int:
    """Drop the answers about some clips from this machine's journals; return how many there were.

    What killed runs left of their pictures goes with them.

    Raises:
        UserError: another living process keeps a journal open.
    """
    names = [name.encode() for name in conversations]
    dropped = 0
    for path in sorted(work_folder("journals").glob("*.jsonl")):
        descriptor = _open_locked(path)
        try:
            for left in path.parent.glob(f"{path.stem}.*"):
                if left != path:
                    left.unlink()
            lines = path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if not any(name in line for name in names)]
            if len(kept) < len(lines):
                partial = path.with_suffix(".part")
                partial.write_bytes(b"".join(kept))
                os.replace(partial, path)
                dropped += len(lines) - len(kept)
        finally:
            os.close(descriptor)
    return dropped


def _drop_forgotten(folder: Path) -> None:
    """Remove journals nobody came back to, and what killed runs left beside them."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process removed it just now
            if time.time() - path.stat().st_mtime > _KEPT_S:
                path.unlink()


def _open_locked(path: Path) -> int:
    """Open ``path`` for appending and lock it; the kernel drops the lock with the process."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor  # else the holder before us removed the file we had opened
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise UserError(
                    "another run is captioning the same shard", where=str(path), fix="wait for it or end it"
                ) from None
        os.close(descriptor)
        time.sleep(0.1)
