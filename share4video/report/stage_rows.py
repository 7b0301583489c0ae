"""The stages of a run and the rows they did not keep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.shards import read_table
from share4video.report.run_tables import RunTables, shortened

ORDER = (
    "probe",
    "brief",
    "dedup",
    "keyframes",
    "caption",
    "dataset",
    "mixture",
    "train",
    "evaluate-base",
    "evaluate-candidate",
    "evaluate-champion",
    "release",
)
_ROWS_ARE = {"probe": "file", "train": "sample", "evaluate": "question", "release": "model"}
MAX_ROWS_PER_REASON = 12
MAX_ROWS = 240
_MAX_SENTENCE = 400


@dataclass(frozen=True)
class StageRow:
    """What a stage did with its rows. ``rows_in == rows_out + sum of rejects``."""

    name: str
    ref: StageRef
    unit: str
    rows_in: int
    rows_out: int
    rejects: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Reject:
    """A row that was not kept, and why."""

    source: str
    sentence: str
    measured: float | None
    bound: float | None


@dataclass(frozen=True)
class RejectGroup:
    """The rejects of one stage for one reason; ``shown`` is a part of them where there are many."""

    stage: str
    reason: str
    total: int
    shown: tuple[Reject, ...]

    @property
    def left_out(self) -> int:
        return self.total - len(self.shown)


def in_order(names: Collection[str]) -> list[str]:
    """Return names of stages in the order they run; those nobody knows come last."""
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def stage_rows(tables: RunTables) -> list[StageRow]:
    """Return one row per stage whose output is known."""
    found = []
    for name in in_order(tables.refs):
        ref = tables.refs[name]
        counts = load_manifest(tables.store, ref).counts
        rows_in = int(counts.get("rows_in", 0))
        rejects = {k.removeprefix("reject:"): int(v) for k, v in counts.items() if k.startswith("reject:")}
        found.append(
            StageRow(
                name=name,
                ref=ref,
                unit=_unit(ref.stage, counts) + ("" if rows_in == 1 else "s"),
                rows_in=rows_in,
                rows_out=int(counts.get("rows_out", 0)),
                rejects=tuple(sorted(rejects.items(), key=lambda item: (-item[1], item[0]))),
            )
        )
    return found


def _unit(stage: str, counts: Mapping[str, float]) -> str:
    """Return what a row of the stage is; files that were split are probed scene by scene."""
    if counts.get("metric:files", counts.get("rows_in")) != counts.get("rows_in"):
        return "scene"
    return _ROWS_ARE.get(stage, "clip")


def reject_groups(tables: RunTables) -> list[RejectGroup]:
    """Return the rejects of all stages by stage and reason, a bounded number of each in full."""
    groups: list[RejectGroup] = []
    room = MAX_ROWS
    for name in in_order(tables.refs):
        rows = read_table(tables.store, tables.refs[name], "rejects")
        totals: defaultdict[str, int] = defaultdict(int)
        shown: defaultdict[str, list[Reject]] = defaultdict(list)
        for batch in rows.to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                reason = row["reason"]
                totals[reason] += 1
                if room > 0 and len(shown[reason]) < MAX_ROWS_PER_REASON:
                    room -= 1
                    sentence = shortened(row["sentence"], _MAX_SENTENCE)
                    source = shortened(row["source_uri"] or row["row_id"], _MAX_SENTENCE)
                    shown[reason].append(Reject(source, sentence, row["measured"], row["bound"]))
        groups += [
            RejectGroup(name, reason, total, tuple(shown[reason])) for reason, total in sorted(totals.items())
        ]
    return groups
