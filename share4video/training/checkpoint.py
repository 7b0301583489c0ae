"""States of an unfinished training in the store, so that it goes on after SIGTERM, kill -9 or a lost machine.

    STORE/training-states/<key>/step-00000200/<file>
    STORE/training-states/<key>/step-00000200/manifest.json    written last: files, sizes, sha256

A state without a manifest, or one whose files are not what the manifest says, does not count; the newest that
counts is the one a training resumes from. They are removed once the trained model is published.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from share4video.dataset.manifest import canonical_json
from share4video.store import Store

KEPT_STATES = 2
_MANIFEST = "manifest.json"
_STEP = re.compile(r"/step-(\d{8})/manifest\.json$")


class Interrupted(SystemExit):
    """The training was asked to stop and saved its state; run it again to go on. Exits like SIGTERM does."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(128 + signal.SIGTERM)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    bytes: int
    sha256: str


class _StateManifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    step: int
    files: tuple[_File, ...]


class TrainingStates:
    """The states of the training that publishes under ``key``."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._prefix = store, f"training-states/{key}"

    def push(self, folder: Path, step: int) -> None:
        """Store the state in ``folder``, its manifest last, and drop all but the newest ``KEPT_STATES``."""
        prefix = self._at(step)
        files = []
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = path.relative_to(folder).as_posix()
            self._store.upload(path, f"{prefix}/{name}")
            files.append(_File(name=name, bytes=path.stat().st_size, sha256=_sha256(path)))
        manifest = _StateManifest(step=step, files=tuple(files))
        self._store.put(f"{prefix}/{_MANIFEST}", canonical_json(manifest.model_dump(mode="json")))
        for old in self._steps()[KEPT_STATES:]:
            self._drop(old)

    def fetch_newest(self, folder: Path) -> Path | None:
        """Copy the newest state that verifies into a folder below ``folder`` and return it, or None."""
        for step in self._steps():
            target = folder / f"checkpoint-{step}"
            if self._fetch(step, target):
                return target
        return None

    def keep(self, name: str, content: bytes) -> None:
        """Keep something else of the training beside its states."""
        self._store.put(f"{self._prefix}/{name}", content)

    def kept(self, name: str) -> bytes | None:
        """Return what was kept under ``name``, or None."""
        try:
            return self._store.get(f"{self._prefix}/{name}")
        except KeyError:
            return None

    def clear(self) -> None:
        """Remove all states, and what is kept beside them."""
        for key in list(self._store.list(self._prefix)):
            self._store.delete(key)

    def _at(self, step: int) -> str:
        return f"{self._prefix}/step-{step:08d}"

    def _steps(self) -> list[int]:
        """Return the steps that have a manifest, newest first."""
        found = (_STEP.search(key) for key in self._store.list(self._prefix))
        return sorted((int(match.group(1)) for match in found if match), reverse=True)

    def _drop(self, step: int) -> None:
        self._store.delete(f"{self._at(step)}/{_MANIFEST}")  # first, so that no half state ever counts
        for key in list(self._store.list(self._at(step))):
            self._store.delete(key)

    def _fetch(self, step: int, target: Path) -> bool:
        shutil.rmtree(target, ignore_errors=True)
        try:
            manifest = _StateManifest.model_validate_json(self._store.get(f"{self._at(step)}/{_MANIFEST}"))
            for file in manifest.files:
                path = target / file.name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._store.download(f"{self._at(step)}/{file.name}", path)
                if path.stat().st_size != file.bytes or _sha256(path) != file.sha256:
                    return False
        except (KeyError, ValidationError):
            return False
        return True


class StopSignal:
    """Remembers SIGTERM while it is entered; all ranks agree on the step they stop after."""

    def __init__(self) -> None:
        self.received = False
        self._previous: Any = None

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def agreed(self) -> bool:
        """Return whether any rank was told to stop."""
        import torch

        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            flag = torch.tensor(float(self.received))
            if distributed.get_backend() == "nccl":
                flag = flag.cuda()
            distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
            self.received = bool(flag.item())
        return self.received


def _sha256(path: Path) -> str:
    with path.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()
