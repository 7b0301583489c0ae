"""A released caption file as a dataset of the store, to be used like one that was captioned here.

With the released archives the videos are probed, and the clips are those that can be decoded. Without them
the clips are text alone: what only a video tells (content hash, duration, frame rate, size, codec) is empty
or 0, and exports that need pictures refuse them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from share4video.config import Config, ProbeConfig
from share4video.dataset.distinct import Distinct
from share4video.dataset.formats import share_captioner, sharegpt4video
from share4video.dataset.formats.lines import Reject
from share4video.dataset.formats.sharegpt4video import Record
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import ShardSet, read_table, table_from_rows
from share4video.errors import UserError, reading
from share4video.media.sources.released import released_uri
from share4video.media.sources.spec import ZIP_FOLDER
from share4video.stages import probe
from share4video.stages.contract import Progress, StageResult
from share4video.stages.outcome import refuse_empty
from share4video.stages.released_rows import NO_SUMMARY, Form, ReleasedRows, reject_line, text_clip
from share4video.store import Store

STAGE = "dataset"
VERSION = "import-1"
CARD_NAME = "README.md"

# Every video that can be decoded is a clip: the release was curated, and its captions are not judged here.
_ANY_VIDEO = ProbeConfig(
    min_duration_s=0,
    max_duration_s=600,
    min_height=1,
    min_fps=0.001,
    max_aspect=10_000,
    max_black_share=None,
    max_single_colour_share=None,
    max_frozen_share=None,
    max_failed_share=1,
)

Row = dict[str, Any]


class ImportConfig(Config):
    """How a released file is imported; ``licence`` is the videos', of which the file says nothing."""

    title: str = "Released captions"
    licence: str = "unknown"
    records_per_shard: int = Field(8192, ge=1)


@dataclass(frozen=True)
class ImportInputs:
    """Absolute paths: the released file, and the folder or S3 prefix of its archives, None for text alone."""

    file: str
    videos: str | None = None


def run_stage(
    inputs: ImportInputs, config: ImportConfig, store: Store, progress: Progress | None = None
) -> StageResult:
    """Publish ``clips``, ``captions``, ``differentials`` and ``rejects`` of a released file, and a card.

    Rows are the file's lines or elements. Rejects are those that say nothing, an id that came before
    (``duplicate_id``), a record without a summary (``no_summary``), and with videos what the probe rejects.
    A file of any length is read in a stream, a shard in memory at a time.

    Raises:
        UserError: the file cannot be read or breaks off, it is the 4.8M file and videos are given, or no
            record is left (the rejects are published).
    """
    path = Path(inputs.file)
    form: Form = "sharegpt4video" if path.suffix == ".jsonl" else "share-captioner"
    with reading("the caption file", path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    videos = _probed(inputs, form, config, store, progress)
    output = ShardSet(
        store,
        STAGE,
        VERSION,
        inputs=[digest, videos.content_hash if videos else ""],
        config=config,
        identity={"form": form},
    )
    manifest, computed = output.published(), 0
    if manifest is None:
        clips = _Clips(store, videos, config.licence)
        shards = 0
        for shards, found in enumerate(_shards(path, form, clips, config), start=1):
            with output.writing(shards - 1) as finished:
                if finished is None:
                    output.commit(shards - 1, *_tables(found))
                    computed += 1
            if progress is not None:
                progress("records", shards * config.records_per_shard, 0)
        if shards == 0:
            raise UserError("there is no record in the file", where=inputs.file, fix="give a released file")
        with output.writing(shards) as finished:
            if finished is None:
                commits = (output.committed(shard) for shard in range(shards))
                totals = totals_of(commit.counts for commit in commits if commit is not None)
                output.attach(CARD_NAME, card_of(totals, form, config.title), shards)
                output.commit(shards, {})
        manifest = output.publish(shards + 1)
    total = len({part.shard for part in manifest.parts})
    result = StageResult.from_manifest(manifest, computed_shards=computed, total_shards=total)
    refuse_empty(result, store, where=inputs.file)
    return result


def _probed(
    inputs: ImportInputs, form: Form, config: ImportConfig, store: Store, progress: Progress | None
) -> StageRef | None:
    """Return the probed clips, None where there are no videos."""
    if inputs.videos is None:
        return None
    if form != "sharegpt4video":
        raise UserError(
            "only records of sharegpt4video_40k.jsonl say in which archive their video is",
            where=inputs.file,
            fix="import this file without --videos",
        )
    source = f"{inputs.file}{ZIP_FOLDER}{inputs.videos}"
    settings = _ANY_VIDEO.model_copy(update={"licence": config.licence})
    return probe.run_stage(probe.ProbeInputs(source), settings, store, progress).ref


class _Clips:
    """The clip of each record: probed, or of text alone."""

    def __init__(self, store: Store, videos: StageRef | None, licence: str) -> None:
        self._licence, self._probed = licence, videos is not None
        self._found: dict[tuple[str, str | None], list[Row]] = {}
        for table in ("clips", "rejects") if videos else ():
            assert videos is not None
            for row in read_table(store, videos, table).to_pylist():
                self._found.setdefault((row["source_uri"], row["source_id"]), []).append(row)

    def of(self, record: Record, form: Form) -> tuple[Row | None, Row | None]:
        """Return a record's clip, or its row of ``rejects``; each probed row answers for one record."""
        if not self._probed:
            return text_clip(record, self._licence), None
        rows = self._found.get((released_uri(record), record.video_id)) or []
        if not rows:
            why = Reject(record.number, "unreadable", "the record's video is none of those that were probed")
            return None, reject_line(why, form, record)
        row = rows.pop(0)
        return (row, None) if "codec" in row else (None, row)  # a row of clips, or of rejects


def _shards(path: Path, form: Form, clips: _Clips, config: ImportConfig) -> Iterator[ReleasedRows]:
    """Yield the rows of each shard, in the file's order."""
    seen = Distinct()
    read = sharegpt4video.read if form == "sharegpt4video" else share_captioner.read
    records = read(path)
    while batch := list(islice(records, config.records_per_shard)):
        rows = ReleasedRows(form)
        for found in batch:
            if isinstance(found, Reject):
                rows.reject(reject_line(found, form))
            elif not seen.add(found.video_id):
                why = Reject(found.number, "duplicate_id", f"video_id {found.video_id!r} came before")
                rows.reject(reject_line(why, form, found))
            elif found.summary is None or not found.summary.strip():
                rows.reject(reject_line(Reject(found.number, *NO_SUMMARY), form, found))
            else:
                clip, reject = clips.of(found, form)
                if clip is not None:
                    rows.add(clip, found)
                elif reject is not None:
                    rows.reject(reject)
        yield rows


def metrics_of(tables: Mapping[str, pa.Table]) -> dict[str, float]:
    """Return the counts of a shard's captions."""
    return {f"metric:{name}": tables[name].num_rows for name in ("captions", "differentials")}


def _tables(found: ReleasedRows) -> tuple[dict[str, pa.Table], dict[str, float]]:
    tables = {name: table_from_rows(name, rows) for name, rows in found.tables.items()}
    reasons = Counter(str(row["reason"]) for row in found.tables["rejects"])
    counts: dict[str, float] = {
        "rows_in": len(found.tables["clips"]) + len(found.tables["rejects"]),
        "rows_out": len(found.tables["clips"]),
        **metrics_of(tables),
        **{f"metric:note_{note}": number for note, number in sorted(found.notes.items())},
        **{f"reject:{reason}": number for reason, number in sorted(reasons.items())},
    }
    return tables, counts


def totals_of(counts: Iterable[Mapping[str, float]]) -> Counter[str]:
    """Return the counts of all shards together."""
    totals: Counter[str] = Counter()
    for found in counts:
        totals.update({name: int(number) for name, number in found.items()})
    return totals


def card_of(totals: Counter[str], form: str, title: str) -> bytes:
    """Return the card of an import from the counts of its shards (see `totals_of`)."""
    lines = [
        f"# {title}",
        "",
        f"Imported from the released file of ShareGPT4Video in form `{form}`: {totals['rows_in']}"
        f" records, {totals['rows_out']} clips. The release is under CC BY-NC 4.0; every video keeps the"
        " licence of its source.",
        "",
        *_listed("Left out", totals, "reject:"),
        *_listed("Mended or odd", totals, "metric:note_"),
    ]
    return "\n".join(lines).encode()


def _listed(heading: str, totals: Counter[str], prefix: str) -> Sequence[str]:
    lines = [
        f"* {key.removeprefix(prefix)}: {totals[key]}" for key in sorted(totals) if key.startswith(prefix)
    ]
    return [f"## {heading}", "", *(lines or ["None."]), ""]
