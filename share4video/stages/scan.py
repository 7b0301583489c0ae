"""The scan: what every file of a source is, measured once for the probe stage, whatever its rules.

The output is keyed by what the files hold and by how they are measured, so other rules are applied to it and
no file is decoded again. Wide: ``plan`` divides the files among tasks, ``run_shard`` works out one part
wherever it is called, ``finish`` publishes all of them. Rows are committed in chunks that do not depend on
the division, so nothing that is published does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from share4video.config import ProbeConfig, ScanConfig
from share4video.curation.filters import Rejection
from share4video.dataset.shards import Manifest, ShardSet, canonical_json, table_from_rows
from share4video.dataset.tombstones import Tombstones
from share4video.errors import UserError
from share4video.media.sources import SourceFile, list_sources
from share4video.stages.contract import Progress
from share4video.stages.scan_rows import Scanner
from share4video.stages.throughput import Meter
from share4video.store import Store

STAGE = "scan"
VERSION = "1"
ROWS_PER_CHUNK = 32
# Settings of which rows there are, who works on them and how many may fail: outputs are named by the rows.
_CHOICES = ("limit", "shard", "shards", "max_failed_share")


@dataclass(frozen=True)
class ScanShard:
    """One task's part of a scan; as text it fits a pipeline's parameter.

    Attributes:
        number: of the part, from 0.
        first: its first chunk.
        end: the chunk after its last.
        digest: of the names and contents of its rows when the scan was planned.
        recipe: of those of all rows.
    """

    number: int
    first: int
    end: int
    digest: str
    recipe: str

    def __str__(self) -> str:
        return f"{self.number}:{self.first}:{self.end}:{self.digest}:{self.recipe}"

    @classmethod
    def parse(cls, text: str) -> ScanShard:
        """Read what ``str`` wrote. Raises ValueError where it is something else."""
        number, first, end, digest, recipe = text.split(":")
        return cls(int(number), int(first), int(end), digest, recipe)


@dataclass(frozen=True)
class _Chunks:
    """The files of a run of chunks, with what they hold.

    Attributes:
        first: number of the first chunk.
        files: in the source's order.
        prints: each file's fingerprint, or why it has none.
    """

    first: int
    files: Sequence[SourceFile]
    prints: Sequence[str | Rejection]

    @property
    def end(self) -> int:
        return self.first - (-len(self.files) // ROWS_PER_CHUNK)

    @property
    def digest(self) -> str:
        """A hash of the files' names and contents, and of what lists say of them."""
        rows = [
            [file.uri, found if isinstance(found, str) else found.sentence, *_listed(file)]
            for file, found in zip(self.files, self.prints, strict=True)
        ]
        return hashlib.sha256(canonical_json(rows)).hexdigest()

    def part(self, first: int, end: int) -> _Chunks:
        """Return the chunks from ``first`` until before ``end``."""
        rows = slice((first - self.first) * ROWS_PER_CHUNK, (end - self.first) * ROWS_PER_CHUNK)
        return _Chunks(first, self.files[rows], self.prints[rows])

    def scan(self, output: ShardSet, scanner: Scanner, progress: Progress | None) -> int:
        """Commit the chunks that are not; return how many that were."""
        meter = Meter("files probed", len(self.files), progress)
        stones = Tombstones.of(output.store)
        chunks = range(self.first, self.end)
        return sum(self._scan(chunk, output, scanner, stones, meter) for chunk in chunks)

    def _scan(self, chunk: int, output: ShardSet, scanner: Scanner, stones: Tombstones, meter: Meter) -> bool:
        part = self.part(chunk, chunk + 1)
        with output.writing(chunk) as done:
            if done is not None:
                meter.skip(len(part.files))
                return False
            rows = [stones.scanned(row) for row in scanner.rows(part.files, part.prints, meter)]
            read = sum(row["reason"] is None for row in rows)
            counts: dict[str, float] = {"rows_in": len(part.files), "metric:read": read}
            output.commit(chunk, {"scans": table_from_rows("scans", rows)}, counts)
            return True


def scan_all(
    source: str, config: ProbeConfig, store: Store, progress: Progress | None = None
) -> tuple[Manifest, int]:
    """Publish table ``scans`` of a source: a row per file, or per scene of a file that is split.

    Args:
        progress: called with a label, how many files are done, and how many there are.

    Returns:
        What is published, and how many chunks this run worked out.

    Raises:
        UserError: the source is missing or holds no file, or what is asked for is not installed or cannot be
            loaded.
    """
    scanner = Scanner(config)
    chunks = _read(_files(source, config), 0, scanner, progress)
    output = _output(chunks.digest, config, scanner, store)
    if (earlier := output.published()) is not None:
        return earlier, 0
    computed = chunks.scan(output, scanner, progress)
    return output.publish(chunks.end), computed


def plan(source: str, config: ProbeConfig, progress: Progress | None = None) -> list[ScanShard]:
    """Divide a source into at most ``config.shards`` parts of about equal size in bytes; at least one.

    Raises:
        UserError: the source is missing or holds no file.
    """
    chunks = _read(_files(source, config), 0, Scanner(config), progress)
    recipe = chunks.digest
    parts = [chunks.part(chunk, chunk + 1) for chunk in range(chunks.end)]
    weights = [1 + sum(file.size() for file in part.files) for part in parts]
    return [
        ScanShard(number, first, end, chunks.part(first, end).digest, recipe)
        for number, (first, end) in enumerate(contiguous(weights, config.shards))
    ]


def run_shard(
    source: str, config: ProbeConfig, store: Store, shard: ScanShard, progress: Progress | None = None
) -> int:
    """Scan and commit one part; return how many of its chunks were not there already.

    Raises:
        UserError: the source is not as it was when the scan was planned.
    """
    scanner = Scanner(config)
    files = _files(source, config)[shard.first * ROWS_PER_CHUNK : shard.end * ROWS_PER_CHUNK]
    chunks = _read(files, shard.first, scanner, progress)
    if chunks.digest != shard.digest:
        raise UserError("the source changed while it was scanned", where=source, fix="start the run again")
    return chunks.scan(_output(shard.recipe, config, scanner, store), scanner, progress)


def finish(config: ProbeConfig, store: Store, shards: Sequence[ScanShard]) -> Manifest:
    """Publish the parts of a plan as one output.

    Raises:
        RuntimeError: a part is not committed.
    """
    output = _output(shards[0].recipe, config, Scanner(config), store)
    return output.published() or output.publish(max(shard.end for shard in shards))


def without_places(config: ProbeConfig) -> ProbeConfig:
    """Return the settings that results depend on: none says where a file is or how work is divided."""
    changes: dict[str, Any] = {}
    if config.aesthetic is not None:
        from share4video.curation.aesthetic import by_content

        changes["aesthetic"] = by_content(config.aesthetic)
    return config.without(*_CHOICES).model_copy(update=changes)


def contiguous(weights: Sequence[float], parts: int) -> list[tuple[int, int]]:
    """Divide things, in their order, into at most ``parts`` runs of about equal weight; none is empty.

    Args:
        weights: positive; at least one.

    Returns:
        The number of each run's first thing, and of the thing after its last.
    """
    share = sum(weights) / parts
    edges, before = [0], 0.0
    for number, weight in enumerate(weights):
        if before + weight / 2 > share * len(edges) and number > edges[-1]:
            edges.append(number)
        before += weight
    return list(zip(edges, [*edges[1:], len(weights)], strict=True))


def _files(source: str, config: ProbeConfig) -> list[SourceFile]:
    """Return the files to scan by name, in whatever order the source lists them."""
    return list_sources(source, limit=config.limit, shard=config.part)


def _listed(file: SourceFile) -> list[str | None]:
    listed = [file.source_id, file.licence, file.metadata]
    return listed if any(listed) else []


def _read(files: Sequence[SourceFile], first: int, scanner: Scanner, progress: Progress | None) -> _Chunks:
    return _Chunks(first, files, scanner.fingerprints(files, Meter("files read", len(files), progress)))


def _output(recipe: str, config: ProbeConfig, scanner: Scanner, store: Store) -> ShardSet:
    settings = without_places(config)
    measured = ScanConfig(**{name: getattr(settings, name) for name in ScanConfig.model_fields})
    return ShardSet(store, STAGE, VERSION, inputs=[recipe], config=measured, identity=scanner.identity)
