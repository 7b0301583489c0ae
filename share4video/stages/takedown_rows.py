"""Tables and attached files of published outputs without the clips that were taken down."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from share4video.dataset.shards import table_from_rows
from share4video.dataset.tombstones import REASON, Tombstone, Tombstones

_GONE_ID = "(taken down)"
_PROBE = "probe"  # the stage that answers for a clip that was taken down; later ones never see it


@dataclass
class Removed:
    """What a shard lost.

    Attributes:
        kept: how many rows of the stage's kept ones; ``rejected`` of its rejects, by reason.
        answered: rows that are rejects now.
        names: values by which attached files speak of what is gone: ids of clips and samples, images.
        images: names of attached pictures of what is gone.
        rows: how many rows of all tables together were removed or changed.
    """

    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    names: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    rows: int = 0

    def counts(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Return a shard's counts without what was removed; what was measured then stays as it was."""
        if not self.rows:
            return dict(counts)
        out = {"rows_out": -self.kept, f"reject:{REASON}": self.answered}
        out |= {f"reject:{reason}": -number for reason, number in self.rejected.items()}
        out["rows_in"] = self.answered - self.kept - sum(self.rejected.values())
        changed = {name: counts.get(name, 0) + change for name, change in out.items() if change}
        merged = {**counts, **changed}
        return {name: value for name, value in merged.items() if value or not name.startswith("reject:")}


class Without:
    """Takes the clips of tombstones out of a shard's tables and files; ``removed`` says what that was."""

    def __init__(self, stones: Tombstones, stage: str) -> None:
        self._stones, self._stage = stones, stage
        self._ids = frozenset(stones.by_id)
        self._by_row: dict[str, list[Tombstone]] = {}
        for stone in stones.by_id.values():
            for row_id in stone.row_ids:
                self._by_row.setdefault(row_id, []).append(stone)
        self._kept: set[str] = set()
        self.removed = Removed()

    def tables(self, tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        """Return one shard's tables without the clips; a table that holds none of them is the same object."""
        found = {name: self.table(name, table) for name, table in tables.items()}
        if "clips" in tables:
            self.removed.kept = tables["clips"].num_rows - found["clips"].num_rows
        else:
            self.removed.kept = len(self._kept)
        if self._stage == _PROBE and self.removed.kept:
            gone = tables["clips"].filter(self._of_clips(tables["clips"]["clip_id"]))
            answers = table_from_rows("rejects", [_answer(row) for row in gone.to_pylist()])
            found["rejects"] = pa.concat_tables([found["rejects"], answers])
            self.removed.answered = self.removed.kept
        return found

    def table(self, name: str, table: pa.Table) -> pa.Table:
        """Return a table without the clips; one that holds none of them is the same object."""
        if name == "scans":
            return self._scans(table)
        if name == "rejects":
            return self._rejects(table)
        gone = None
        for column in ("clip_id", "other_id"):
            if column in table.column_names:
                found = self._of_clips(table[column])
                gone = found if gone is None else pc.or_(gone, found)
        if gone is None:
            return table
        if pc.any(gone).as_py():
            lost = table.filter(gone)
            self.removed.rows += lost.num_rows
            self._note(name, lost)
            table = table.filter(pc.invert(gone))
            if name == "sft":  # a picture may be shown in the samples of another clip, too
                self.removed.images -= _pictures(table)
        return self._nulled(table)

    def _note(self, name: str, lost: pa.Table) -> None:
        ids = set(lost["clip_id"].to_pylist()) & self._ids
        self._kept |= ids
        self.removed.names |= ids
        if name == "sft":
            self.removed.names |= set(lost["sample_id"].to_pylist())
            self.removed.images |= _pictures(lost)

    def _nulled(self, table: pa.Table) -> pa.Table:
        """Forget that a clip which was taken down was the nearest one of another."""
        if "nearest_kept_id" not in table.column_names:
            return table
        column = table["nearest_kept_id"]
        gone = pc.fill_null(self._of_clips(column), False)
        if not pc.any(gone).as_py():
            return table
        self.removed.rows += pc.sum(gone).as_py()
        number = table.column_names.index("nearest_kept_id")
        return table.set_column(number, table.field(number), pc.if_else(gone, None, column))

    def _of_clips(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        return pc.is_in(column, pa.array(sorted(self._ids), pa.string()))

    def _scans(self, table: pa.Table) -> pa.Table:
        before = table.to_pylist()
        after = [self._stones.scanned(row) for row in before]
        changed = sum(row != old for row, old in zip(after, before, strict=True))
        self.removed.rows += changed
        return table_from_rows("scans", after) if changed else table

    def _rejects(self, table: pa.Table) -> pa.Table:
        before = table.to_pylist()
        after = []
        for row in before:
            if self._stage != _PROBE and row["clip_id"] in self._ids:
                self.removed.rejected[row["reason"]] += 1
                self.removed.rows += 1
                continue
            named = next((i for i in self._words(row["sentence"]) if i in self._ids), None)
            if named is not None:
                row = {**row, "sentence": row["sentence"].replace(named, _GONE_ID)}
                self.removed.rows += 1
            after.append(row)
        return table if after == before else table_from_rows("rejects", after)

    @staticmethod
    def _words(sentence: str) -> list[str]:
        return sentence.replace(",", " ").split()

    def file(self, name: str, data: bytes) -> bytes | None:
        """Return an attached file without what it says of the clips; None where nothing is left of it.

        Lines of ``.jsonl`` and elements of a list in ``.json`` are taken out one by one.
        """
        if name in self.removed.images:
            return None
        names = self.removed.names | self._ids
        if name.endswith(".jsonl"):
            lines = data.splitlines(keepends=True)
            return b"".join(line for line in lines if not _mentions(_parsed(line), names))
        if name.endswith(".json") and isinstance(elements := _parsed(data), list):
            kept = [element for element in elements if not _mentions(element, names)]
            if len(kept) == len(elements):
                return data
            written = ",\n".join(json.dumps(element, ensure_ascii=False) for element in kept)
            return f"[\n{written}\n]\n".encode()
        return None if any(clip_id.encode() in data for clip_id in self._ids) else data

    def is_clean_text(self, name: str, data: bytes) -> bool:
        """Return whether a file is text that does not speak of the clips; what is no text may show them."""
        if not name.endswith((".json", ".jsonl", ".md", ".txt")):
            return False
        return not any(clip_id.encode() in data for clip_id in self._ids)


def _answer(clip: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: clip[name] for name in ("row_id", "source_uri", "source_id")}
    said = {"stage": _PROBE, "reason": REASON, "sentence": "the clip was taken down"}
    return {**named, **said, "clip_id": None, "measured": None, "bound": None}


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode(errors="replace")


def _mentions(value: Any, names: Iterable[str]) -> bool:
    """Return whether one of ``names`` is among the texts of a JSON value."""
    if isinstance(value, str):
        return value in names
    if isinstance(value, dict):
        return any(_mentions(item, names) for pair in value.items() for item in pair)
    return isinstance(value, list) and any(_mentions(item, names) for item in value)


def _pictures(samples: pa.Table) -> set[str]:
    """Return the names of the attached pictures of samples: grids under ``image``, strips under ``video``."""
    return {name for column in ("image", "video") for name in samples[column].to_pylist() if name}
