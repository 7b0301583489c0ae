"""The dataset stage: clips, their captions in every role, the released jsonl form and a data card.

A version that is added to an earlier one holds the earlier rows byte for byte, as the same shards, and what
is new as one more shard. Of the earlier rejects it leaves out those of clips that are decided anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from share4video.config import DatasetConfig, LicenceConfig
from share4video.dataset.card import CardFacts, data_card
from share4video.dataset.formats import sharegpt4video
from share4video.dataset.licences import commercial_use
from share4video.dataset.manifest import Manifest, StageRef, load_manifest
from share4video.dataset.outputs import earlier_of
from share4video.dataset.published import ClipSample, released_record
from share4video.dataset.shards import ShardSet, read_file, read_table, table_from_rows
from share4video.errors import UserError
from share4video.stages.clip_frames import reject_row
from share4video.stages.contract import Progress, StageResult
from share4video.stages.dataset_rows import (
    brief_caption,
    by_clip,
    caption_order,
    in_order,
    link_rows,
    sliding_caption,
    summary_of,
)
from share4video.store import Store

STAGE = "dataset"
VERSION = "1"
EXPORT_NAME = "sharegpt4video.jsonl"
CARD_NAME = "README.md"
NO_SUMMARY, LICENCE = "no_summary", "licence"
TABLE_NAMES = ("clips", "differentials", "captions", "links", "rejects")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class DatasetInputs:
    """What the dataset joins: the clips that were kept, and what the captioning stages published of them.

    ``earlier`` is a published dataset that the clips are added to.
    """

    clips: StageRef
    brief: StageRef
    keyframes: StageRef
    caption: StageRef
    earlier: StageRef | None = None


@dataclass
class _Rows:
    """The rows of the tables, and the lines of the released form."""

    tables: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in TABLE_NAMES})
    lines: list[bytes] = field(default_factory=list)

    def reject(self, clip: Row, reason: str, sentence: str) -> None:
        self.tables["rejects"].append(reject_row(clip, STAGE, reason, sentence))


def run_stage(
    inputs: DatasetInputs, config: DatasetConfig, store: Store, progress: Progress | None = None
) -> StageResult:
    """Publish clips, differentials, captions of all roles, links, ``sharegpt4video.jsonl`` and ``README.md``.

    A clip without a summary is a reject (``no_summary``), and so is one of a licence that is not asked for
    (``licence``). Rows keep the order of the clips table. Where clips are added to an earlier version its
    rows come first, and a clip that it holds is not added again.

    Raises:
        UserError: ``commercial_only``, and the earlier version holds clips whose licence may not allow it; or
            the earlier version was imported.
    """
    refs = (inputs.clips, inputs.brief, inputs.keyframes, inputs.caption)
    hashes = [ref.content_hash for ref in refs]
    identity = {} if inputs.earlier is None else {"earlier": str(inputs.earlier)}
    output = ShardSet(store, STAGE, VERSION, inputs=hashes, config=config, identity=identity)
    published = output.published()
    if published is not None:
        total = len({part.shard for part in published.parts})
        return StageResult.from_manifest(published, computed_shards=0, total_shards=total)
    before = _shards(_growing(store, inputs.earlier)) if inputs.earlier else []
    computed, anew = 0, _clip_ids(inputs, store)
    for shard, number in enumerate(before):
        assert inputs.earlier is not None
        held = {name: read_table(store, inputs.earlier, name, shard=number) for name in TABLE_NAMES}
        again = pc.is_in(held["rejects"]["clip_id"], anew)
        if pc.any(again).as_py():
            held["rejects"] = held["rejects"].filter(pc.invert(again))
        with output.writing(shard) as done:
            if done is None:
                output.commit(shard, held)
                computed += 1
    with output.writing(len(before)) as done:
        if done is None:
            _write(output, len(before), inputs, config, progress)
            computed += 1
    total = len(before) + 1
    return StageResult.from_manifest(output.publish(total), computed_shards=computed, total_shards=total)


def earlier_versions(store: Store, earlier: StageRef | None) -> list[tuple[str, int]]:
    """Return the versions that one grew from, oldest first, each with how many clips came with it."""
    found: list[tuple[str, int]] = []
    while earlier is not None:
        manifest = load_manifest(store, earlier)
        earlier = earlier_of(manifest.config)
        held = load_manifest(store, earlier).rows("clips") if earlier else 0
        found.append((str(manifest.ref), manifest.rows("clips") - held))
    return found[::-1]


def allowed_by(config: LicenceConfig, licence: str) -> bool:
    """Return whether a clip of this licence is wanted."""
    return not config.commercial_only or commercial_use(licence, config.commercial_licences) == "yes"


def licence_sentence(clip: Row, config: LicenceConfig) -> str:
    use = commercial_use(clip["licence"], config.commercial_licences)
    said = "does not allow commercial use" if use == "no" else "is not known to allow commercial use"
    return f"the licence {clip['licence']} {said}"


def _shards(manifest: Manifest) -> list[int]:
    return sorted({part.shard for part in manifest.parts})


def _clip_ids(inputs: DatasetInputs, store: Store) -> pa.ChunkedArray:
    return read_table(store, inputs.clips, "clips", columns=["clip_id"])["clip_id"]


def _growing(store: Store, earlier: StageRef) -> Manifest:
    """Return the manifest of a version that clips can be added to. Raises UserError for another one."""
    manifest = load_manifest(store, earlier)
    if all(file.name != EXPORT_NAME for file in manifest.files):
        raise UserError(
            "the dataset was not captioned here, so no clips are added to it",
            where=str(earlier),
            fix="publish the clips as a dataset of their own",
        )
    return manifest


def _write(
    output: ShardSet, shard: int, inputs: DatasetInputs, config: DatasetConfig, progress: Progress | None
) -> None:
    """Write what is new as the last shard, with the files and counts of the whole version."""
    store = output.store
    before = _published(inputs.earlier, config, store)
    there = {clip["clip_id"] for clip in before.tables["clips"]}
    anew = set(_clip_ids(inputs, store).to_pylist())
    before.tables["rejects"] = [row for row in before.tables["rejects"] if row["clip_id"] not in anew]
    clips = read_table(store, inputs.clips, "clips").to_pylist()
    new = _joined([clip for clip in clips if clip["clip_id"] not in there], inputs, config, store, progress)
    rows = {name: [*before.tables[name], *new.tables[name]] for name in TABLE_NAMES}
    output.attach(EXPORT_NAME, b"".join([*before.lines, *new.lines]), shard)
    card = card_of(rows, config, earlier_versions(store, inputs.earlier), len(new.tables["clips"]))
    output.attach(CARD_NAME, card, shard)
    tables = {name: table_from_rows(name, new.tables[name]) for name in TABLE_NAMES}
    output.commit(shard, tables, counts_of(rows))


def _published(earlier: StageRef | None, config: DatasetConfig, store: Store) -> _Rows:
    """Return what an earlier version holds, nothing where there is none."""
    found = _Rows()
    if earlier is None:
        return found
    found.tables = {name: read_table(store, earlier, name).to_pylist() for name in TABLE_NAMES}
    unwanted = sum(not allowed_by(config, clip["licence"]) for clip in found.tables["clips"])
    if unwanted:
        raise UserError(
            f"{unwanted} clips of the published version have a licence that may not allow commercial use",
            where=str(earlier),
            fix="publish a version without them first, or leave dataset.commercial_only out",
        )
    found.lines = [read_file(store, earlier, EXPORT_NAME)]
    return found


def _joined(
    clips: Sequence[Row],
    inputs: DatasetInputs,
    config: DatasetConfig,
    store: Store,
    progress: Progress | None,
) -> _Rows:
    """Join what the captioning stages say of some clips."""
    differentials = by_clip(read_table(store, inputs.caption, "differentials").to_pylist())
    captions = by_clip(read_table(store, inputs.caption, "captions").to_pylist())
    keyframes = read_table(store, inputs.keyframes, "keyframes", columns=["clip_id"])
    framed = set(keyframes["clip_id"].to_pylist())
    brief_manifest = load_manifest(store, inputs.brief)
    briefs = {row["clip_id"]: row for row in read_table(store, inputs.brief, "brief_captions").to_pylist()}
    rows = _Rows()
    for done, clip in enumerate(clips, start=1):
        clip_id = clip["clip_id"]
        sliding = in_order(differentials[clip_id])
        summary = summary_of(captions[clip_id])
        if not allowed_by(config, clip["licence"]):
            rows.reject(clip, LICENCE, licence_sentence(clip, config))
        elif summary is None:
            missing = "the captioner gave no summary" if clip_id in framed else "there are no key frames"
            rows.reject(clip, NO_SUMMARY, f"{missing} of this clip")
        else:
            own = [*captions[clip_id], *map(sliding_caption, sliding)]
            if clip_id in briefs:
                own.append(brief_caption(clip, briefs[clip_id]["caption"], brief_manifest))
            own.sort(key=caption_order)
            rows.tables["clips"].append(clip)
            rows.tables["differentials"] += sliding
            rows.tables["captions"] += own
            rows.tables["links"] += link_rows(clip_id, summary["caption"], sliding)
            sample = ClipSample(clip, tuple(own), tuple(sliding))
            rows.lines.append(sharegpt4video.encode(released_record(sample)))
        if progress is not None:
            progress("clips", done, len(clips))
    return rows


def card_of(
    tables: Mapping[str, Sequence[Row]],
    config: DatasetConfig,
    earlier: Sequence[tuple[str, int]],
    added: int,
) -> bytes:
    """Return the data card of a version's tables.

    Args:
        earlier: the versions it grew from, as `earlier_versions` returns them.
        added: how many clips came with this one.
    """
    facts = CardFacts(
        title=config.title,
        clips=tables["clips"],
        captions=tables["captions"],
        links=tables["links"],
        keyframes_per_clip=Counter(row["clip_id"] for row in tables["differentials"]),
        rejects=tables["rejects"],
        versions=[*earlier, ("this version", added)] if earlier else (),
        commercial_licences=config.commercial_licences,
    )
    return data_card(facts).encode()


def counts_of(tables: Mapping[str, Sequence[Row]]) -> dict[str, float]:
    """Return the counts of a version's tables."""
    clips, captions, rejects = tables["clips"], tables["captions"], tables["rejects"]
    summaries = [len(row["caption"].split()) for row in captions if row["role"] == "summary"]
    reasons = Counter(row["reason"] for row in rejects)
    return {
        "rows_in": len(clips) + len(rejects),
        "rows_out": len(clips),
        "metric:captions": len(captions),
        "metric:hours": round(sum(clip["duration_s"] for clip in clips) / 3600, 6),
        "metric:summary_words_mean": round(sum(summaries) / max(1, len(summaries)), 3),
        "metric:summary_sentences": len(tables["links"]),
        "metric:unsupported_sentences": sum(not row["keyframes"] for row in tables["links"]),
        **{f"reject:{reason}": number for reason, number in sorted(reasons.items())},
    }
