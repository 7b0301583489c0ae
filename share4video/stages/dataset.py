"""The dataset stage: clips, their captions in every role, the released jsonl form and a data card."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from share4video.config import DatasetConfig
from share4video.dataset.card import CardFacts, data_card
from share4video.dataset.formats import sharegpt4video
from share4video.dataset.manifest import Manifest, StageRef, load_manifest
from share4video.dataset.schema import CAPTIONS
from share4video.dataset.shards import ShardSet, read_table, table_from_rows
from share4video.stages.clip_frames import reject_row
from share4video.stages.contract import Progress, StageResult
from share4video.store import Store

STAGE = "dataset"
VERSION = "1"
EXPORT_NAME = "sharegpt4video.jsonl"
CARD_NAME = "README.md"

_ROLE_ORDER = ("brief", "sliding", "part_summary", "summary", "fast", "recaption", "prompt", "structured")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class DatasetInputs:
    """What the dataset joins: the clips that were kept, and what the captioning stages published of them."""

    clips: StageRef
    brief: StageRef
    keyframes: StageRef
    caption: StageRef


def run_stage(
    inputs: DatasetInputs, config: DatasetConfig, store: Store, progress: Progress | None = None
) -> StageResult:
    """Publish clips, differentials, captions of all roles, ``sharegpt4video.jsonl`` and ``README.md``.

    A clip without a summary is a reject (``no_summary``). Rows keep the order of the clips table.
    """
    refs = (inputs.clips, inputs.brief, inputs.keyframes, inputs.caption)
    output = ShardSet(store, STAGE, VERSION, inputs=[ref.content_hash for ref in refs], config=config)
    earlier = output.published()
    if earlier is not None:
        return StageResult.from_manifest(earlier, computed_shards=0, total_shards=1)
    with output.writing(0) as finished:
        if finished is None:
            _write(output, inputs, config, progress)
    computed = int(finished is None)
    return StageResult.from_manifest(output.publish(1), computed_shards=computed, total_shards=1)


def _write(output: ShardSet, inputs: DatasetInputs, config: DatasetConfig, progress: Progress | None) -> None:
    store = output.store
    clips = read_table(store, inputs.clips, "clips").to_pylist()
    differentials = _by_clip(read_table(store, inputs.caption, "differentials").to_pylist())
    captions = _by_clip(read_table(store, inputs.caption, "captions").to_pylist())
    keyframes = read_table(store, inputs.keyframes, "keyframes").select(["clip_id", "index", "timestamp_s"])
    frames = _by_clip(keyframes.to_pylist())
    brief_manifest = load_manifest(store, inputs.brief)
    briefs = {row["clip_id"]: row for row in read_table(store, inputs.brief, "brief_captions").to_pylist()}

    kept, rejects = [], []
    rows: list[Row] = []
    lines: list[bytes] = []
    for done, clip in enumerate(clips, start=1):
        clip_id = clip["clip_id"]
        sliding = sorted(differentials[clip_id], key=lambda row: row["index"])
        if not any(row["role"] == "summary" for row in captions[clip_id]):
            missing = "the captioner gave no summary" if clip_id in frames else "there are no key frames"
            sentence = f"{missing} of this clip"
            rejects.append(reject_row(clip, STAGE, "no_summary", sentence))
        else:
            kept.append(clip)
            own = [*captions[clip_id], *map(_sliding_caption, sliding)]
            if clip_id in briefs:
                own.append(_brief_caption(clip, briefs[clip_id]["caption"], brief_manifest))
            rows += sorted(own, key=_caption_order)
            lines.append(sharegpt4video.encode(_record(clip, frames[clip_id], sliding, captions[clip_id])))
        if progress is not None:
            progress("clips", done, len(clips))

    facts = CardFacts(
        title=config.title,
        clips=kept,
        captions=rows,
        keyframes_per_clip={clip_id: len(found) for clip_id, found in frames.items()},
        rejects=rejects,
    )
    output.attach(EXPORT_NAME, b"".join(lines))
    output.attach(CARD_NAME, data_card(facts).encode())
    tables = {
        "clips": table_from_rows("clips", kept),
        "differentials": table_from_rows(
            "differentials", [row for clip in kept for row in _in_order(differentials[clip["clip_id"]])]
        ),
        "captions": table_from_rows("captions", rows),
        "rejects": table_from_rows("rejects", rejects),
    }
    output.commit(0, tables, _counts(clips, kept, rejects, rows))


def _counts(
    clips: list[dict[str, Any]], kept: list[dict[str, Any]], rejects: list[dict[str, Any]], rows: list[Row]
) -> dict[str, float]:
    summaries = [len(row["caption"].split()) for row in rows if row["role"] == "summary"]
    counts: dict[str, float] = {
        "rows_in": len(clips),
        "rows_out": len(kept),
        "metric:captions": len(rows),
        "metric:hours": round(sum(clip["duration_s"] for clip in kept) / 3600, 6),
        "metric:summary_words_mean": round(sum(summaries) / max(1, len(summaries)), 3),
    }
    if rejects:
        counts["reject:no_summary"] = len(rejects)
    return counts


def _by_clip(rows: Iterable[dict[str, Any]]) -> defaultdict[str, list[dict[str, Any]]]:
    grouped: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[row["clip_id"]].append(row)
    return grouped


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["index"])


def _caption_order(row: Row) -> tuple[Any, ...]:
    role = row["role"]
    place = _ROLE_ORDER.index(role) if role in _ROLE_ORDER else len(_ROLE_ORDER)
    return place, role, row["start_s"], row["end_s"], row["dialect"], row["prompt_version"], row["engine"]


def _sliding_caption(row: Row) -> dict[str, Any]:
    own = {name: row[name] for name in CAPTIONS.names if name in row}
    fallback = ["fallback"] if row["fallback"] else []
    return {**own, "role": "sliding", "checks": [*fallback, *row["checks"]]}


def _brief_caption(clip: Row, caption: str, manifest: Manifest) -> dict[str, Any]:
    """The brief table holds the caption alone; who wrote it is part of that stage's identity.

    A version of the prompts is their name and a number or hash.
    """
    prompts = str(manifest.config["@prompts"])
    return {
        "clip_id": clip["clip_id"],
        "start_s": clip["start_s"],
        "end_s": clip["end_s"],
        "role": "brief",
        "engine": str(manifest.config["@engine"]),
        "dialect": prompts.rpartition("-")[0],
        "prompt_version": prompts,
        "caption": caption,
        "prompt_tokens": 0,  # the brief table counts none
        "tokens": 0,
        "attempt": 0,
        "checks": [],
    }


def _record(clip: Row, frames: list[Any], sliding: list[Any], captions: list[Any]) -> sharegpt4video.Record:
    """Return the clip in the released form: ``keyframe`` and ``idx`` are the key frames' numbers from 0."""
    frames = _in_order(frames)
    summary = min((row for row in captions if row["role"] == "summary"), key=_caption_order)
    return sharegpt4video.Record(
        video_id=clip["clip_id"],
        video_path=clip["source_uri"],
        timestamps=tuple(row["timestamp_s"] for row in frames),
        keyframes=tuple(row["index"] for row in frames),
        captions=(
            *(sharegpt4video.Caption(str(row["index"]), row["caption"]) for row in sliding),
            sharegpt4video.Caption(sharegpt4video.SUMMARY_IDX, summary["caption"]),
        ),
        zip_folder="",
    )
