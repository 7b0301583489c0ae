"""Probe: find, check and hash the files of a source; each becomes a clip or a reject that says why."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from share4video.config import ProbeConfig
from share4video.curation.filters import Rejection, exact_duplicate, judge
from share4video.dataset.shards import ShardSet, canonical_json, read_table, table_from_rows
from share4video.errors import UserError
from share4video.media.limits import Limits, MediaError
from share4video.media.probe import ClipInfo, probe
from share4video.media.sources import SourceFile, list_sources
from share4video.stages.contract import StageResult
from share4video.stages.throughput import Rate
from share4video.store import Store

STAGE = "probe"
VERSION = "1"
ROWS_PER_SHARD = 256
_PROBES_AT_ONCE = 2  # each decodes in a child process of its own
_ID_LENGTH = 32
# Settings of which rows there are: the output is named by the rows, and holds no path of this machine.
_CHOICES: dict[str, Any] = {"allow": (), "limit": None, "shard": None}

Progress = Callable[[str, int, int], None]
Row = dict[str, Any]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ProbeInputs:
    """``source``: one source or several, as `share4video.media.sources.join_sources` writes them."""

    source: str


@dataclass(frozen=True)
class _Input:
    """An input row: a file, and its content hash or why it has none."""

    file: SourceFile
    content: str | Rejection

    @property
    def identity(self) -> list[str | None]:
        found = self.content if isinstance(self.content, str) else self.content.sentence
        listed = [self.file.source_id, self.file.licence, self.file.metadata]
        return [self.file.uri, found, *(listed if any(listed) else ())]


def run_stage(
    inputs: ProbeInputs, config: ProbeConfig, store: Store, progress: Progress | None = None
) -> StageResult:
    """Publish ``clips`` and ``rejects`` of a source, one row of either for each of its files.

    Ids and order depend on names below the sources and on content, not on where a source is. Of files with
    equal bytes the first by name is kept.

    Args:
        progress: called with a label, how many files are done, and how many there are.

    Raises:
        UserError: the source is missing, holds no file, or none of its files became a clip; in the last case
            the rejects are published.
    """
    rows = _read_rows(inputs.source, config, progress)
    recipe = hashlib.sha256(canonical_json([row.identity for row in rows])).hexdigest()
    rules = config.model_copy(update=_CHOICES)
    output = ShardSet(store, STAGE, VERSION, inputs=[recipe], config=rules)
    shards = -(-len(rows) // ROWS_PER_SHARD)
    manifest, computed = output.published(), 0
    if manifest is None:
        firsts: dict[str, SourceFile] = {}
        for row in rows:
            if isinstance(row.content, str):
                firsts.setdefault(row.content, row.file)
        for shard in range(shards):
            start = shard * ROWS_PER_SHARD
            part = rows[start : start + ROWS_PER_SHARD]
            with output.writing(shard) as done:
                if done is None:
                    _write_shard(output, shard, part, firsts, config, _shifted(progress, start, len(rows)))
                    computed += 1
        manifest = output.publish(shards)
    result = StageResult.from_manifest(manifest, computed_shards=computed, total_shards=shards)
    if result.rows_out == 0:
        raise _nothing_kept(", ".join(inputs.source.splitlines()), result, store)
    return result


def _read_rows(source: str, config: ProbeConfig, progress: Progress | None) -> list[_Input]:
    def read(file: SourceFile) -> _Input:
        try:
            return _Input(file, file.content_hash(max_bytes=config.max_file_bytes))
        except MediaError as error:
            return _Input(file, Rejection.of(error))

    files = list_sources(source, allow=config.allow, limit=config.limit, shard=config.part)
    rows, rate = [], Rate("files read")
    for row in _in_parallel(read, files):
        rows.append(row)
        rate.add(row.file.size())
        if progress is not None:
            progress(rate.label(), len(rows), len(files))
    return rows


def _write_shard(
    output: ShardSet,
    shard: int,
    rows: Sequence[_Input],
    firsts: Mapping[str, SourceFile],
    config: ProbeConfig,
    count: Callable[[int], None],
) -> None:
    limits = Limits(wall_s=config.decode_timeout_s, max_pixels=config.max_pixels)
    one_of_each = {row.content: row for row in rows if isinstance(row.content, str)}

    def verdict(row: _Input) -> ClipInfo | Rejection:
        assert isinstance(row.content, str)
        try:
            with row.file.opened(row.content) as path:
                clip = probe(
                    path,
                    limits=limits,
                    max_file_bytes=config.max_file_bytes,
                    decode_up_to_s=config.max_duration_s,
                    known_hash=row.content,
                )
        except MediaError as error:
            return Rejection.of(error)
        return judge(clip, config) or clip

    found = _counted(_in_parallel(verdict, list(one_of_each.values())), count)
    verdicts = dict(zip(one_of_each, found, strict=True))
    clips: list[Row] = []
    rejects: list[Row] = []
    for row in rows:
        outcome = row.content if isinstance(row.content, Rejection) else verdicts[row.content]
        if isinstance(outcome, ClipInfo) and (first := firsts[outcome.content_hash]) is not row.file:
            outcome = exact_duplicate(first.uri)
        if isinstance(outcome, ClipInfo):
            clips.append(_clip_row(row.file, outcome, config.licence))
        else:
            rejects.append(_reject_row(row.file, outcome))
    assert len(rows) == len(clips) + len(rejects)
    reasons = Counter(str(reject["reason"]) for reject in rejects)
    counts = {
        "rows_in": len(rows),
        "rows_out": len(clips),
        "metric:kept_s": sum(float(clip["duration_s"]) for clip in clips),
        **{f"reject:{reason}": number for reason, number in sorted(reasons.items())},
    }
    tables = {"clips": table_from_rows("clips", clips), "rejects": table_from_rows("rejects", rejects)}
    output.commit(shard, tables, counts)
    count(len(rows))


def _clip_row(file: SourceFile, clip: ClipInfo, licence: str) -> Row:
    span = f"{clip.content_hash}:{0.0:.6f}:{clip.duration_s:.6f}"
    return {
        "clip_id": hashlib.sha256(span.encode()).hexdigest()[:_ID_LENGTH],
        "row_id": file.row_id,
        "source_uri": file.uri,
        "source_id": file.source_id,
        "content_hash": clip.content_hash,
        "start_s": 0.0,
        "end_s": clip.duration_s,
        "licence": file.licence or licence,
        "duration_s": clip.duration_s,
        "fps": clip.fps,
        "width": clip.width,
        "height": clip.height,
        "codec": clip.codec,
        "metadata": file.metadata,
    }


def _reject_row(file: SourceFile, rejection: Rejection) -> Row:
    return {
        "row_id": file.row_id,
        "source_uri": file.uri,
        "source_id": file.source_id,
        "stage": STAGE,
        "reason": rejection.reason,
        "sentence": rejection.sentence,
        "measured": rejection.measured,
        "bound": rejection.bound,
    }


def _nothing_kept(source: str, result: StageResult, store: Store) -> UserError:
    """Return the error of a source without a single clip, with the commonest reason and an example."""
    reason, number = max(result.rejects.items(), key=lambda item: (item[1], item[0]))
    if result.rejects.keys() == {"not_video"}:
        return UserError("there is no video in the folder", where=source, fix="give a folder of videos")
    rejects = read_table(store, result.ref, "rejects").to_pylist()
    example = next(row for row in rejects if row["reason"] == reason)
    remedy = "give other clips or change the bounds under probe"
    return UserError(
        f"none of {result.rows_in} files became a clip, {number} of them rejected as {reason}",
        where=source,
        fix=f"{remedy}; for one, {example['source_uri']}: {example['sentence']}",
    )


def _in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``work`` of each item, in their order."""
    with ThreadPoolExecutor(min(_PROBES_AT_ONCE, os.cpu_count() or 1), "probe") as threads:
        yield from threads.map(work, items)


def _counted(items: Iterable[Item], count: Callable[[int], None]) -> Iterator[Item]:
    for done, item in enumerate(items, start=1):
        yield item
        count(done)


def _shifted(
    progress: Progress | None, before: int, total: int, label: str = "files probed"
) -> Callable[[int], None]:
    """Return a counter of a part of the files that reports on all of them."""

    def count(done: int) -> None:
        if progress is not None:
            progress(label, before + done, total)

    return count
