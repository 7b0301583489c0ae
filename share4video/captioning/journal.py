"""Answers already paid for: a file of JSON lines that a killed run reads and goes on from.

An answer is appended before anything is made of it, so the calls a kill costs are those in flight. Failures
are not kept, refusals neither: by the next run the engine may have been mended or set up anew. The file
belongs to one shard of one stage output (the name is a hash of the output's address, which depends on
inputs, configuration, engine and prompts) and is removed once the shard is committed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from share4video.captioning.client import Completion
from share4video.errors import UserError
from share4video.work import work_folder

_LOCK_TIMEOUT_S = 30.0
_KEPT_S = 30 * 86400.0


class _Line(BaseModel):
    """One call's answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conversation: str
    call: str
    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def completion(self) -> Completion:
        return Completion(self.text, self.finish_reason, self.prompt_tokens, self.completion_tokens)


class Journal:
    """The answers to one shard's calls. Made by `open_journal`; the file has one writer at a time."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor
        self._known: dict[tuple[str, str], Completion] = {}
        self._read()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, conversation: str, call: str) -> Completion | None:
        return self._known.get((conversation, call))

    def record(self, conversation: str, call: str, answer: Completion) -> None:
        """Append an answer."""
        line = _Line(conversation=conversation, call=call, **vars(answer))
        data = line.model_dump_json(exclude_defaults=True).encode() + b"\n"
        if os.write(self._descriptor, data) != len(data):
            raise UserError(
                "cannot write the journal: the disk is full", where=str(self.path), fix="make room"
            )
        self._known[conversation, call] = answer

    def remove(self) -> None:
        """Remove the file: what it held is committed."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        """Read what is there and cut off a last line that a kill left unfinished."""
        whole = 0
        with self.path.open("rb") as file:
            for data in file:
                if not data.endswith(b"\n"):
                    break
                whole += len(data)
                try:
                    line = _Line.model_validate_json(data)
                except ValidationError:
                    continue  # damaged, as after a power cut: that call is made again
                self._known[line.conversation, line.call] = line.completion()
        os.ftruncate(self._descriptor, whole)


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
        yield Journal(path, descriptor)
    finally:
        os.close(descriptor)


def forget(conversations: Collection[str]) -> int:
    """Drop the answers about some clips from this machine's journals; return how many there were.

    Raises:
        UserError: another living process keeps a journal open.
    """
    names = [name.encode() for name in conversations]
    dropped = 0
    for path in sorted(work_folder("journals").glob("*.jsonl")):
        descriptor = _open_locked(path)
        try:
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
    """Remove journals nobody came back to."""
    for path in folder.glob("*.jsonl"):
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
