"""The pairs of clips that are alike: found once for the de-duplication stage, whatever its thresholds.

The output is keyed by what the pairs depend on, so another threshold is replayed without looking at a clip
again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from share4video.config import DedupConfig
from share4video.curation.described import Described, matrix, searched_rows
from share4video.curation.encoders import Vectors, frame_encoder
from share4video.curation.floors import affordable_floor
from share4video.curation.neighbours import find_pairs
from share4video.dataset.shards import (
    Manifest,
    ShardSet,
    StageRef,
    load_manifest,
    read_table,
    table_from_rows,
)
from share4video.errors import UserError
from share4video.stages import looks
from share4video.stages.clip_frames import shift_metrics
from share4video.stages.contract import Progress
from share4video.stages.dedup_inputs import DedupInputs, captioned, embeddings, published_outputs, unpublished
from share4video.store import Store

STAGE = "neighbours"
VERSION = "1"
LOWEST_FLOOR, HIGHEST_FLOOR = 0.5, 0.99  # between which a floor is chosen where none is given
# Settings on which pairs do not depend: they decide on admission, or who works on what.
_DECISIONS = ("text_threshold", "visual_threshold", "source_priority", "shards", "max_failed_share")
# Settings in which clips that are compared must agree.
_DESCRIPTION = ("mode", "visual_frames", "visual_decode", "visual_pooling")


def run_stage(
    inputs: DedupInputs,
    config: DedupConfig,
    store: Store,
    *,
    progress: Progress | None = None,
) -> tuple[Manifest, bool]:
    """Publish ``clips`` (those described, by id), their ``vectors``, ``neighbours`` and ``rejects``.

    Rows in are the clips that have a brief caption; the others were answered for by the brief stage. Clips
    that are published already are rejected as ``exact_duplicate``, and those whose looks cannot be decoded
    under the decoder's reason.

    Returns:
        What is published, and whether this run worked out any of it.

    Raises:
        UserError: the floor is too low for the embeddings, an encoder is unknown or cannot be loaded, earlier
            clips were described otherwise, or the source does not hold a clip as it was probed.
    """
    made = load_manifest(store, inputs.brief).config
    described_by = {"embedder": f"{made['embedder']}@{made.get('@embedder')}"}
    if config.mode != "text":
        encoder = frame_encoder(config.visual_encoder)
        described_by["encoder"] = f"{encoder.name}@{encoder.revision}"
    hashes = [ref.content_hash for ref in (inputs.clips, inputs.brief, inputs.published) if ref is not None]
    asked = looks.by_content(config).without(*_DECISIONS)
    output = ShardSet(store, STAGE, VERSION, inputs=hashes, config=asked, identity=described_by)
    if (earlier := output.published()) is not None:
        return earlier, False
    with output.writing(0) as done:
        if done is None:
            before = _published_clips(store, inputs.published, asked, described_by)
            output.commit(0, *_compared(inputs, config, store, before, progress))
    return output.publish(1), done is None


def _compared(
    inputs: DedupInputs,
    config: DedupConfig,
    store: Store,
    before: Sequence[Described],
    progress: Progress | None,
) -> tuple[dict[str, pa.Table], dict[str, float]]:
    """Return the stage's tables and counts."""
    rows = captioned(inputs, store)
    clips, rejects = unpublished(rows, {clip_id for part in before for clip_id in part.ids})
    seen, shift = None, {}
    if config.mode != "text":
        looked, _ = looks.run_stage(inputs, config, store, progress=progress)
        seen = read_table(store, looked.ref, "looks").sort_by("clip_id")
        rejects += read_table(store, looked.ref, "rejects").to_pylist()
        there = set(seen["clip_id"].to_pylist())
        clips = [clip for clip in clips if clip["clip_id"] in there]
        shift = shift_metrics(seen["shift_s"].drop_null().to_pylist())
    ids = tuple(clip["clip_id"] for clip in clips)
    text = None if config.mode == "visual" else embeddings(store, inputs.brief, ids)
    own = Described(ids, text, None if seen is None else looks_of(seen, config))
    everything = own.beside(before)
    if config.center_text:
        everything = everything.centred()
    floor = _floor(everything, config)
    pairs = find_pairs(
        text=everything.text,
        looks=everything.looks,
        floor=floor,
        max_pairs_per_row=config.max_pairs_per_row,
        search=config.search,
    )
    reasons = Counter(reject["reason"] for reject in rejects)
    tables = {
        "clips": table_from_rows("clips", clips),
        "vectors": own.to_table(),
        "neighbours": pairs.to_table(everything.ids),
        "rejects": table_from_rows("rejects", rejects),
    }
    counts: dict[str, float] = {
        "rows_in": len(rows),
        "rows_out": len(clips),
        "metric:near_pairs": len(pairs.clip),
        "metric:floor": floor,
        **({} if pairs.recall is None else {"metric:recall": pairs.recall}),
        **{f"metric:{name}": value for name, value in shift.items()},
        **{f"reject:{reason}": number for reason, number in sorted(reasons.items())},
    }
    return tables, counts


def _published_clips(
    store: Store, published: StageRef | None, config: DedupConfig, described_by: dict[str, str]
) -> list[Described]:
    """Return what an output of the dedup stage, and those it was added to, kept, as it was described.

    Raises:
        UserError: it was described in another way: similarities between the two would mean nothing.
    """
    found = []
    for output, kept in published_outputs(store, published):
        ref = StageRef.parse(output.config["@neighbours"])
        made = load_manifest(store, ref).config
        how = {name: made.get(name) for name in _DESCRIPTION}
        if how != {name: getattr(config, name) for name in how} or any(
            made.get(f"@{name}") != revision for name, revision in described_by.items()
        ):
            raise UserError(
                "the published clips were described by other encoders or in another mode",
                where=str(output.ref),
                fix="curate with the settings of that run, or without what is published",
            )
        found.append(Described.from_table(read_table(store, ref, "vectors")).only(kept))
    return found


def looks_of(table: pa.Table, config: DedupConfig) -> Vectors:
    """Return table ``looks`` as [clips, frames, dimensions]."""
    frames = 1 if config.visual_pooling == "mean" else config.visual_frames
    found = matrix(table["looks"])
    return np.empty((0, frames, 1), np.float32) if found is None else found.reshape(len(table), frames, -1)


def _floor(described: Described, config: DedupConfig) -> float:
    if config.floor is not None:
        return config.floor
    rows = searched_rows(described.text, described.looks)
    return affordable_floor(rows, config.pairs_per_row, lowest=LOWEST_FLOOR, highest=HIGHEST_FLOOR)
