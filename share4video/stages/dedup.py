"""The de-duplication stage: one clip of every group of near-duplicates, and the pairs it was decided from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from share4video.config import DedupConfig
from share4video.curation.dedup import Admission, Thresholds, admit, survivor_order
from share4video.curation.encoders import FrameEncoder, frame_encoder, text_encoder
from share4video.curation.neighbours import find_pairs
from share4video.dataset.shards import ShardSet, StageRef, load_manifest, read_table, table_from_rows
from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.stages.clip_frames import Row, clip_frames, media_reject, reject_row
from share4video.stages.contract import StageResult
from share4video.store import Store

STAGE = "dedup"
VERSION = "1"
LOOKS_MAX_SIDE = 640  # pixels; frames are only encoded here, and encoders look at less

Progress = Callable[[str, int, int], None]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class DedupInputs:
    """Clips, their brief captions, and the folder the clips' ``source_uri`` are relative to."""

    clips: StageRef
    brief: StageRef
    source: str


def run_stage(
    inputs: DedupInputs, config: DedupConfig, store: Store, *, progress: Progress | None = None
) -> StageResult:
    """Publish ``clips`` (the kept ones), ``dedup``, ``neighbours`` and ``rejects``.

    Rows in are the clips that have a brief caption; the others were answered for by the brief stage. Further
    rows of the same clip (one content under two names) are rejected as ``exact_duplicate``, near ones as
    ``near_duplicate``, and clips whose looks cannot be decoded under the decoder's reason.

    Raises:
        UserError: a threshold is below the floor, the floor is too low for the embeddings, an encoder is
            unknown or cannot be loaded, or the source does not hold a clip as it was probed.
    """
    encoder = frame_encoder(config.visual_encoder)
    identity = {} if config.mode == "text" else {"encoder": f"{encoder.name}@{encoder.revision}"}
    content = [inputs.clips.content_hash, inputs.brief.content_hash]
    output = ShardSet(store, STAGE, VERSION, inputs=content, config=config, identity=identity)
    earlier = output.published()
    if earlier is not None:
        return StageResult.from_manifest(earlier, computed_shards=0, total_shards=1)
    thresholds = _thresholds(inputs, config, store, encoder)
    with output.writing(0) as done:
        if done is None:
            tables, counts = _deduplicated(inputs, config, store, encoder, thresholds, progress)
            output.commit(0, tables, counts)
    return StageResult.from_manifest(output.publish(1), computed_shards=int(done is None), total_shards=1)


def _thresholds(inputs: DedupInputs, config: DedupConfig, store: Store, encoder: FrameEncoder) -> Thresholds:
    """Return what decides; a threshold that is not given is that of the encoder which made the vectors."""
    text = visual = None
    if config.mode != "visual":
        embedder = str(load_manifest(store, inputs.brief).config["embedder"])
        text = text_encoder(embedder).threshold if config.text_threshold is None else config.text_threshold
    if config.mode != "text":
        visual = encoder.duplicate_threshold if config.visual_threshold is None else config.visual_threshold
    for name, threshold in (("text", text), ("visual", visual)):
        if threshold is not None and threshold < config.floor:  # known before anything is decoded
            raise UserError(
                f"the {name} threshold {threshold:g} is below the floor {config.floor:g}",
                where=f"dedup.{name}_threshold",
                fix="raise it or lower dedup.floor",
            )
    return Thresholds(text, visual)


def _deduplicated(
    inputs: DedupInputs,
    config: DedupConfig,
    store: Store,
    encoder: FrameEncoder,
    thresholds: Thresholds,
    progress: Progress | None,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the stage's tables and counts."""
    rows, embedding_of = _captioned(inputs, store)
    clips, rejects = _distinct(rows)
    looks = None
    if config.mode != "text":
        clips, looks, undecoded = _looks(clips, inputs.source, encoder, config.visual_frames, progress)
        rejects += undecoded
    text = None
    if config.mode != "visual":
        text = np.array([embedding_of[clip["clip_id"]] for clip in clips], np.float32)
        text = text.reshape(len(clips), -1) if len(clips) else np.empty((0, 1), np.float32)
    ids = [clip["clip_id"] for clip in clips]
    pairs = find_pairs(text=text, looks=looks, floor=config.floor, max_pairs_per_row=config.max_pairs_per_row)
    order = survivor_order(
        [clip["width"] * clip["height"] for clip in clips], [clip["duration_s"] for clip in clips], ids
    )
    admissions = admit(order, pairs, thresholds)
    kept = [clip for clip, admission in zip(clips, admissions, strict=True) if admission.kept]
    for clip, admission in zip(clips, admissions, strict=True):
        if not admission.kept:
            assert admission.nearest is not None
            sentence = f"a near-duplicate of clip {ids[admission.nearest]}"
            rejects.append(
                reject_row(clip, STAGE, "near_duplicate", sentence, admission.similarity, admission.threshold)
            )
    rejects.sort(key=lambda reject: (reject["row_id"], reject["source_uri"]))
    reasons = Counter(reject["reason"] for reject in rejects)
    tables = {
        "clips": table_from_rows("clips", kept),
        "dedup": _dedup_table(ids, admissions),
        "neighbours": pairs.to_table(ids),
        "rejects": table_from_rows("rejects", rejects),
    }
    counts: dict[str, float] = {
        "rows_in": len(rows),
        "rows_out": len(kept),
        "metric:near_pairs": len(pairs.clip),
        **{f"reject:{reason}": number for reason, number in sorted(reasons.items())},
    }
    return tables, counts


def _captioned(inputs: DedupInputs, store: Store) -> tuple[Rows, dict[str, list[float]]]:
    """Return the clips that have a brief caption, and the captions' embeddings by clip.

    Raises:
        RuntimeError: a clip has neither a brief caption nor a reject that says why.
    """
    brief = read_table(store, inputs.brief, "brief_captions")
    embeddings = dict(zip(brief["clip_id"].to_pylist(), brief["embedding"].to_pylist(), strict=True))
    refused = set(read_table(store, inputs.brief, "rejects")["row_id"].to_pylist())
    rows = []
    for clip in read_table(store, inputs.clips, "clips").to_pylist():
        if clip["clip_id"] in embeddings:
            rows.append(clip)
        elif clip["row_id"] not in refused:
            raise RuntimeError(f"{inputs.brief}: says nothing of row {clip['row_id']}")
    return rows, embeddings


def _distinct(rows: Sequence[Row]) -> tuple[list[Row], Rows]:
    """Return one row per clip, by id, and rejects for the others; the first by source name stays."""
    clips: dict[str, Row] = {}
    rejects = []
    for row in sorted(rows, key=lambda row: (row["clip_id"], row["source_uri"], row["row_id"])):
        first = clips.setdefault(row["clip_id"], row)
        if first is not row:
            sentence = f"the same content as {first['source_uri']}"
            rejects.append(reject_row(row, STAGE, "exact_duplicate", sentence))
    return list(clips.values()), rejects


def _looks(
    clips: Sequence[Row], source: str, encoder: FrameEncoder, frames: int, progress: Progress | None
) -> tuple[list[Row], npt.NDArray[np.float32], Rows]:
    """Return the clips that can be decoded, their looks [clips, frames, dimensions], and other rejects.

    A look is taken in the middle of each of ``frames`` equal parts of the clip.
    """

    def middles_s(clip: Row) -> list[float]:
        length_s = clip["end_s"] - clip["start_s"]
        return [clip["start_s"] + length_s * (part + 0.5) / frames for part in range(frames)]

    seen: list[Row] = []
    looks, rejects = [], []
    found = clip_frames(clips, source, middles_s, max_side=LOOKS_MAX_SIDE)
    for number, (clip, pictures) in enumerate(found, start=1):
        if isinstance(pictures, MediaError):
            rejects.append(media_reject(clip, STAGE, pictures))
        else:
            seen.append(clip)
            looks.append(encoder.encode([picture.rgb for picture in pictures]))
        if progress is not None:
            progress("clips", number, len(clips))
    return seen, np.stack(looks) if looks else np.empty((0, frames, 1), np.float32), rejects


def _dedup_table(ids: Sequence[str], admissions: Sequence[Admission]) -> Any:
    rows = [
        {
            "clip_id": clip_id,
            "kept": admission.kept,
            "nearest_kept_id": None if admission.nearest is None else ids[admission.nearest],
            "similarity": admission.similarity,
            "threshold": admission.threshold,
        }
        for clip_id, admission in zip(ids, admissions, strict=True)
    ]
    return table_from_rows("dedup", rows)
