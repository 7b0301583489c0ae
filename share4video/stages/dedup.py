"""The de-duplication stage: one clip of every group of near-duplicates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from share4video.config import DedupConfig
from share4video.curation.dedup import Thresholds, admit, kept_counts, survivor_order
from share4video.curation.encoders import frame_encoder, text_encoder
from share4video.curation.neighbours import NearPairs
from share4video.dataset.shards import (
    Manifest,
    ShardSet,
    StageRef,
    load_manifest,
    read_table,
    table_from_rows,
)
from share4video.errors import UserError
from share4video.stages.clip_frames import Row, reject_row
from share4video.stages.contract import Progress, StageResult
from share4video.stages.dedup_inputs import STAGE, DedupInputs, kept_before
from share4video.stages.looks import by_content
from share4video.stages.neighbours import LOWEST_FLOOR
from share4video.stages.neighbours import run_stage as find_neighbours
from share4video.stages.outcome import refuse_empty, refuse_failures
from share4video.store import Store

__all__ = ["DedupInputs", "in_order_of_survival", "run_stage"]

VERSION = "2"
SWEEP_STEP = 0.01


def run_stage(
    inputs: DedupInputs, config: DedupConfig, store: Store, *, progress: Progress | None = None
) -> StageResult:
    """Publish ``clips`` (the kept ones), ``dedup``, ``sweep`` and ``rejects``.

    Rows in are the clips that have a brief caption; the others were answered for by the brief stage. Clips
    that are published already are rejected as ``exact_duplicate``, near ones as ``near_duplicate``, and those
    whose looks cannot be decoded under the decoder's reason.

    Raises:
        UserError: a threshold is below the floor, the floor is too low for the embeddings, an encoder is
            unknown or cannot be loaded, the source does not hold a clip as it was probed, nothing is left, or
            too many clips cannot be decoded; in the last two cases the rejects are published.
    """
    thresholds = _thresholds(inputs, config, store)
    compared, new = find_neighbours(inputs, config, store, progress=progress)
    identity = {"neighbours": str(compared.ref)}
    if inputs.published is not None:
        identity["published"] = str(inputs.published)
    rules = by_content(config).without(
        "shards", "max_failed_share"
    )  # who looked at what does not matter any more
    output = ShardSet(store, STAGE, VERSION, inputs=[compared.content_hash], config=rules, identity=identity)
    earlier = output.published()
    if earlier is not None:
        return _checked(earlier, inputs, config, store, 0)
    with output.writing(0) as done:
        if done is None:
            output.commit(0, *_deduplicated(compared, inputs.published, config, store, thresholds))
    computed = int(done is None or new)
    return _checked(output.publish(1), inputs, config, store, computed)


def _checked(
    manifest: Manifest, inputs: DedupInputs, config: DedupConfig, store: Store, computed: int
) -> StageResult:
    """Return the result of what is published. Raises UserError as `run_stage` does."""
    result = StageResult.from_manifest(manifest, computed_shards=computed, total_shards=1)
    if inputs.published is None:  # what is added to others may all be there already
        refuse_empty(result, store, where=STAGE)
    share, setting = config.max_failed_share, "dedup.max_failed_share"
    refuse_failures(result, store, max_share=share, setting=setting, where=STAGE)
    return result


def _thresholds(inputs: DedupInputs, config: DedupConfig, store: Store) -> Thresholds:
    """Return what decides; a threshold that is not given is that of the encoder which made the vectors."""
    text = visual = None
    if config.mode != "visual":
        if config.center_text and config.text_threshold is None:
            raise UserError(
                "no encoder has a threshold for centred embeddings",
                where="dedup.text_threshold",
                fix="give one, or leave dedup.center_text out",
            )
        embedder = str(load_manifest(store, inputs.brief).config["embedder"])
        text = text_encoder(embedder).threshold if config.text_threshold is None else config.text_threshold
    if config.mode != "text":
        own = frame_encoder(config.visual_encoder).duplicate_threshold
        visual = own if config.visual_threshold is None else config.visual_threshold
    for name, threshold in (("text", text), ("visual", visual)):
        lowest = LOWEST_FLOOR if config.floor is None else config.floor
        if threshold is not None and threshold < lowest:  # known before anything is decoded
            raise UserError(
                f"the {name} threshold {threshold:g} is below the floor {lowest:g}",
                where=f"dedup.{name}_threshold",
                fix="raise it or lower dedup.floor",
            )
    return Thresholds(text, visual)


def _deduplicated(
    compared: Manifest,
    published: StageRef | None,
    config: DedupConfig,
    store: Store,
    thresholds: Thresholds,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the stage's tables and counts."""
    clips = read_table(store, compared.ref, "clips").to_pylist()
    rejects = read_table(store, compared.ref, "rejects").to_pylist()
    before = kept_before(store, published)
    own = [clip["clip_id"] for clip in clips]
    ids = sorted([*own, *before])
    number = {clip_id: index for index, clip_id in enumerate(ids)}
    pairs = NearPairs.from_table(
        read_table(store, compared.ref, "neighbours"),
        ids,
        mode=config.mode,
        floor=compared.counts["metric:floor"],
    )
    order = [number[clip_id] for clip_id in sorted(before)]
    order += [number[clip["clip_id"]] for clip in in_order_of_survival(clips, config.source_priority)]
    admissions = admit(order, pairs, thresholds, admitted=len(before))
    decided = {clip_id: admissions[number[clip_id]] for clip_id in own}
    kept = [clip for clip in clips if decided[clip["clip_id"]].kept]
    for clip in clips:
        admission = decided[clip["clip_id"]]
        if not admission.kept:
            assert admission.nearest is not None
            sentence = f"a near-duplicate of clip {ids[admission.nearest]}"
            rejects.append(
                reject_row(clip, STAGE, "near_duplicate", sentence, admission.similarity, admission.threshold)
            )
    rejects.sort(key=lambda reject: (reject["row_id"], reject["source_uri"]))
    reasons = Counter(reject["reason"] for reject in rejects)
    rows = [
        {
            "clip_id": clip_id,
            "kept": admission.kept,
            "nearest_kept_id": None if admission.nearest is None else ids[admission.nearest],
            "similarity": admission.similarity,
            "threshold": admission.threshold,
        }
        for clip_id, admission in decided.items()
    ]
    tables = {
        "clips": table_from_rows("clips", kept),
        "dedup": table_from_rows("dedup", rows),
        "sweep": table_from_rows("sweep", _sweep(order, pairs, thresholds, len(before))),
        "rejects": table_from_rows("rejects", rejects),
    }
    counts: dict[str, float] = {
        "rows_in": compared.counts["rows_in"],
        "rows_out": len(kept),
        **{name: value for name, value in compared.counts.items() if name.startswith("metric:")},
        **{f"reject:{reason}": count for reason, count in sorted(reasons.items())},
    }
    return tables, counts


def _sweep(
    order: Sequence[int], pairs: NearPairs, thresholds: Thresholds, before: int
) -> list[dict[str, Any]]:
    """Say how many of the clips other thresholds would keep, from the floor of the pairs upwards."""
    rows = []
    first = math.ceil(round(pairs.floor / SWEEP_STEP, 6))
    for name in ("text", "visual"):
        if getattr(thresholds, name) is None:
            continue
        tried = [step * SWEEP_STEP for step in range(first, round(1 / SWEEP_STEP) + 1)]
        others = [replace(thresholds, **{name: threshold}) for threshold in tried]
        counts = kept_counts(order, pairs, others, admitted=before)
        rows += [
            {"measure": name, "threshold": threshold, "kept": kept - before}
            for threshold, kept in zip(tried, counts, strict=True)
        ]
    return rows


def in_order_of_survival(clips: Sequence[Row], source_priority: Sequence[str]) -> list[Row]:
    """Return the clips, best first; ``source_priority`` are patterns of ``source_uri``, the best first."""

    def rank(clip: Row) -> int:
        matches = (fnmatchcase(clip["source_uri"], pattern) for pattern in source_priority)
        return next((number for number, matched in enumerate(matches) if matched), len(source_priority))

    order = survivor_order(
        [clip["width"] * clip["height"] for clip in clips],
        [clip["duration_s"] for clip in clips],
        [rank(clip) for clip in clips],
        [clip["clip_id"] for clip in clips],
    )
    return [clips[number] for number in order]
