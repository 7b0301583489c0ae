"""What was taken down: a list in the store that every stage honours, and what became of published outputs.

    takedowns/clips/<clip_id>.json        a clip that was taken down; written once, never changed
    takedowns/outputs/<stage>/<key>.json  a published output that held it, and the one that replaced it

The list says which content a clip is, so that the same bytes under another name, or cut into other scenes,
do not come back.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from share4video.errors import UserError
from share4video.store import Store

FOLDER = "takedowns"
REASON = "taken_down"
_CLIPS, _OUTPUTS = f"{FOLDER}/clips", f"{FOLDER}/outputs"
# What is kept of a scanned row that is taken down: enough to answer for it.
_KEPT_OF_A_SCAN = (
    *("row_id", "source_uri", "occurrence", "source_id"),
    *("content_hash", "scene", "start_s", "end_s"),
)


class Tombstone(BaseModel):
    """A clip that was taken down.

    Attributes:
        content_hash: of the file whose span ``start_s`` to ``end_s`` (seconds) the clip was; None where the
            store did not say (a clip of text alone has no file), or where the clip was taken down for sharing
            a span with another one.
        row_ids: input rows that became this clip.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    clip_id: str
    reason: str
    content_hash: str | None = None
    start_s: float = 0.0
    end_s: float = 0.0
    row_ids: tuple[str, ...] = ()

    def covers(self, content_hash: str | None, start_s: float | None, end_s: float | None) -> bool:
        """Return whether a span of a file's content shares pictures with this clip; no span is all of it."""
        if not self.content_hash or content_hash != self.content_hash:
            return False
        return start_s is None or end_s is None or (start_s < self.end_s and self.start_s < end_s)


class Succession(BaseModel):
    """What became of a published output.

    Attributes:
        new: what replaced ``old``; None where it was deleted.
        clips: those it was rewritten for.
        inputs: by what outputs made from the old one name it among their inputs, what they name now.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    old: str
    new: str | None
    clips: tuple[str, ...]
    inputs: dict[str, str] = {}


class Tombstones:
    """All clips that were taken down in a store, with what they were."""

    def __init__(self, stones: Iterable[Tombstone]) -> None:
        self.by_id = {stone.clip_id: stone for stone in stones}
        self._by_content: defaultdict[str | None, list[Tombstone]] = defaultdict(list)
        for stone in self.by_id.values():
            self._by_content[stone.content_hash].append(stone)

    @classmethod
    def of(cls, store: Store) -> Tombstones:
        """Read the store's list."""
        return cls(Tombstone.model_validate_json(store.get(key)) for key in store.list(_CLIPS))

    def covers(self, content_hash: str | None, start_s: float | None, end_s: float | None) -> bool:
        """Return whether a span of a file's content shares pictures with a clip that was taken down."""
        found = self._by_content.get(content_hash, ())
        return any(stone.covers(content_hash, start_s, end_s) for stone in found)

    def scanned(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row of table ``scans``, as a failure with nothing measured where it is taken down."""
        if row["reason"] == REASON or not self.covers(row["content_hash"], row["start_s"], row["end_s"]):
            return dict(row)
        kept = {name: row[name] for name in _KEPT_OF_A_SCAN}
        return {**dict.fromkeys(row), **kept, "reason": REASON, "sentence": "the clip was taken down"}


def checked_id(clip_id: str) -> str:
    """Return a clip's id as it may stand in a key. Raises UserError where it cannot be one."""
    if not re.fullmatch(r"[\w-]{1,128}", clip_id, re.ASCII):
        raise UserError("not the id of a clip", where=clip_id, fix="give it as table clips has it")
    return clip_id


def bury(store: Store, stone: Tombstone) -> bool:
    """Add a clip to the list; return whether it was not there."""
    key = f"{_CLIPS}/{checked_id(stone.clip_id)}.json"
    return store.put_if_absent(key, stone.model_dump_json().encode())


def taken_down(store: Store) -> frozenset[str]:
    """Return the ids of the clips that were taken down, by their names alone."""
    return frozenset(PurePosixPath(key).stem for key in store.list(_CLIPS))


def rows_taken_down(store: Store, table: pa.Table) -> pa.ChunkedArray | None:
    """Say of each row whether its clip was taken down; None where no row's was."""
    if "clip_id" not in table.column_names or not table.num_rows or not (gone := taken_down(store)):
        return None
    found = pc.is_in(table["clip_id"], pa.array(sorted(gone), pa.string()))
    return found if pc.any(found).as_py() else None


def record(store: Store, succession: Succession) -> None:
    """Write down what became of an output."""
    prefix = succession.old.partition("@")[0]
    store.put(f"{_OUTPUTS}/{prefix}.json", succession.model_dump_json().encode())


def successions(store: Store) -> list[Succession]:
    """Return what became of every output that held a clip which was taken down."""
    return [Succession.model_validate_json(store.get(key)) for key in store.list(_OUTPUTS)]


def succession_of(store: Store, prefix: str) -> Succession | None:
    """Return what became last of the output ``stage/key``; None where it is as it was published."""
    found = None
    while True:
        try:
            later = Succession.model_validate_json(store.get(f"{_OUTPUTS}/{prefix}.json"))
        except KeyError:
            return found
        found = later
        if found.new is None:
            return found
        prefix = found.new.partition("@")[0]
