"""Probe: find, check and hash the files of a source; each becomes a clip or a reject that says why.

What a file is was measured by the scan (``scan.py``); here the rules are applied to it. Where the scan split
a file into scenes, each scene is a row of its own.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from share4video.config import ProbeConfig
from share4video.curation.filters import Rejection, exact_duplicate, in_scene, judge
from share4video.dataset.shards import Manifest, ShardSet, canonical_json, read_table, table_from_rows
from share4video.dataset.tombstones import Tombstones
from share4video.errors import UserError
from share4video.media.probe import ClipInfo
from share4video.stages import scan
from share4video.stages.contract import Progress, StageResult
from share4video.stages.outcome import commonest_reject, refuse_failures
from share4video.stages.scan import ScanShard
from share4video.stages.scan_rows import finding
from share4video.store import Store

STAGE = "probe"
VERSION = "2"
ROWS_PER_SHARD = 256
_ID_LENGTH = 32

Row = dict[str, Any]


@dataclass(frozen=True)
class ProbeInputs:
    """``source``: one source or several, as `share4video.media.sources.join_sources` writes them."""

    source: str


def run_stage(
    inputs: ProbeInputs, config: ProbeConfig, store: Store, progress: Progress | None = None
) -> StageResult:
    """Publish ``clips`` and ``rejects`` of a source, a row of either for each of its files, or scenes of one.

    Ids and order depend on names below the sources and on content, not on where a source is. Of files with
    equal bytes the first by name is kept.

    Args:
        progress: called with a label, how many files are done, and how many there are.

    Raises:
        UserError: the source is missing, holds no file, none of its files became a clip, or too many cannot
            be read; in the last two cases the rejects are published.
    """
    scanned, computed = scan.scan_all(inputs.source, config, store, progress)
    return _decide(inputs, config, store, scanned, computed)


def plan(inputs: ProbeInputs, config: ProbeConfig, progress: Progress | None = None) -> list[ScanShard]:
    """Divide the work; see `scan.plan`."""
    return scan.plan(inputs.source, config, progress)


def run_shard(
    inputs: ProbeInputs, config: ProbeConfig, store: Store, shard: ScanShard, progress: Progress | None = None
) -> int:
    """Work out one part; see `scan.run_shard`."""
    return scan.run_shard(inputs.source, config, store, shard, progress)


def finish(
    inputs: ProbeInputs, config: ProbeConfig, store: Store, shards: Sequence[ScanShard]
) -> StageResult:
    """Publish what the parts of a plan found, as `run_stage` does.

    Raises:
        RuntimeError: a part was not worked out.
        UserError: as `run_stage`.
    """
    return _decide(inputs, config, store, scan.finish(config, store, shards), None)


def _decide(
    inputs: ProbeInputs, config: ProbeConfig, store: Store, scanned: Manifest, computed: int | None
) -> StageResult:
    """Apply the rules to what was scanned. ``computed``: chunks this run scanned, None where others did."""
    stones = Tombstones.of(store)
    rows = in_order(map(stones.scanned, read_table(store, scanned.ref, "scans").to_pylist()))
    output = ShardSet(store, STAGE, VERSION, inputs=[recipe(rows)], config=scan.without_places(config))
    starts = range(0, len(rows), ROWS_PER_SHARD)
    chunks = len({part.shard for part in scanned.parts})
    if (manifest := output.published()) is None:
        firsts: dict[str, Row] = {}
        for row in rows:
            if row["content_hash"] is not None and row["reason"] is None:  # what failed stands for no other
                firsts.setdefault(row["content_hash"], row)
        for shard, start in enumerate(starts):
            with output.writing(shard) as done:
                if done is None:
                    output.commit(shard, *_decided(rows[start : start + ROWS_PER_SHARD], firsts, config))
                    computed = None if computed is None else computed + 1
        manifest = output.publish(len(starts))
    elif computed is None:
        computed = 0
    total = chunks + len(starts)
    result = StageResult.from_manifest(manifest, computed_shards=computed, total_shards=total)
    where = ", ".join(inputs.source.splitlines())
    if result.rows_out == 0:
        raise _nothing_kept(where, result, store)
    bound = config.max_failed_share
    refuse_failures(result, store, max_share=bound, setting="probe.max_failed_share", where=where)
    return result


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return rows of table ``scans`` in the order that the output has."""
    return sorted(rows, key=lambda row: (row["source_uri"], row["occurrence"], row["start_s"] or 0.0))


def recipe(rows: Sequence[Row]) -> str:
    """Return what the output depends on beside the rules: a hash of the scanned rows, in order."""
    return hashlib.sha256(canonical_json(list(rows))).hexdigest()


def _decided(
    rows: Sequence[Row], firsts: Mapping[str, Row], config: ProbeConfig
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the tables and counts of some rows of ``scans``.

    Args:
        firsts: by content, the first row that holds it.
    """
    clips: list[Row] = []
    rejects: list[Row] = []
    for row in rows:
        found = finding(row)
        rejection = found if isinstance(found, Rejection) else _rejection(row, found, firsts, config)
        if rejection is not None:
            rejects.append(_reject_row(row, rejection))
        elif isinstance(found, ClipInfo):
            clips.append(_clip_row(row, found, config.licence))
    assert len(rows) == len(clips) + len(rejects)
    reasons = Counter(str(reject["reason"]) for reject in rejects)
    counts = {
        "rows_in": len(rows),
        "rows_out": len(clips),
        "metric:files": sum(not row["scene"] for row in rows),
        "metric:kept_s": sum(float(clip["duration_s"]) for clip in clips),
        **{f"reject:{reason}": number for reason, number in sorted(reasons.items())},
    }
    tables = {"clips": table_from_rows("clips", clips), "rejects": table_from_rows("rejects", rejects)}
    return tables, counts


def _rejection(row: Row, clip: ClipInfo, firsts: Mapping[str, Row], config: ProbeConfig) -> Rejection | None:
    broken = judge(clip, config)
    first = firsts[clip.content_hash]
    if broken is None and first["row_id"] != row["row_id"]:
        return in_scene(exact_duplicate(first["source_uri"]), clip)
    return broken


def _clip_row(row: Row, clip: ClipInfo, licence: str) -> Row:
    span = f"{clip.content_hash}:{clip.start_s:.6f}:{clip.end_s:.6f}"
    return {
        "clip_id": hashlib.sha256(span.encode()).hexdigest()[:_ID_LENGTH],
        "row_id": row["row_id"],
        "source_uri": row["source_uri"],
        "source_id": row["source_id"],
        "content_hash": clip.content_hash,
        "scene": clip.scene,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "licence": row["licence"] or licence,
        "duration_s": clip.duration_s,
        "fps": clip.fps,
        "width": clip.width,
        "height": clip.height,
        "codec": clip.codec,
        "metadata": row["metadata"],
    }


def _reject_row(row: Row, rejection: Rejection) -> Row:
    return {
        "row_id": row["row_id"],
        "source_uri": row["source_uri"],
        "source_id": row["source_id"],
        "clip_id": None,
        "stage": STAGE,
        "reason": rejection.reason,
        "sentence": rejection.sentence,
        "measured": rejection.measured,
        "bound": rejection.bound,
    }


def _nothing_kept(source: str, result: StageResult, store: Store) -> UserError:
    """Return the error of a source without a single clip, with the commonest reason and an example."""
    if result.rejects.keys() == {"not_video"}:
        return UserError("there is no video in the source", where=source, fix="give one that holds videos")
    reason, number, example = commonest_reject(result, store)
    remedy = "give other clips or change the bounds under probe"
    rows = "files" if result.rows_in == result.metrics["files"] else "scenes"
    return UserError(
        f"none of {result.rows_in} {rows} became a clip, {number} of them rejected as {reason}",
        where=source,
        fix=f"{remedy}; for one, {example['source_uri']}: {example['sentence']}",
    )
