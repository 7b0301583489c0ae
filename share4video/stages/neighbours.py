"""The pairs of clips that are alike: found once for the de-duplication stage, whatever its thresholds.

The output is keyed by what the pairs depend on, so another threshold is replayed without looking at a clip
again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from share4video.config import DedupConfig
from share4video.curation.described import Described, matrix, searched_rows
from share4video.curation.encoders import FrameEncoder, frame_encoder
from share4video.curation.floors import affordable_floor
from share4video.curation.neighbours import find_pairs
from share4video.curation.samples import Samples
from share4video.dataset.shards import (
    Manifest,
    ShardSet,
    StageRef,
    load_manifest,
    read_table,
    table_from_rows,
)
from share4video.errors import UserError
from share4video.media.decode import frames_at
from share4video.media.limits import MediaError
from share4video.stages.clip_frames import Row, clip_frames, media_reject, reject_row
from share4video.store import Store

STAGE = "neighbours"
VERSION = "1"
LOOKS_MAX_SIDE = 640  # pixels; frames are only encoded here, and encoders look at less
LOWEST_FLOOR, HIGHEST_FLOOR = 0.5, 0.99  # between which a floor is chosen where none is given
# Settings of which pairs do not depend; they decide on admission only.
_DECISIONS: dict[str, Any] = {"text_threshold": None, "visual_threshold": None, "source_priority": ()}

Progress = Callable[[str, int, int], None]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class DedupInputs:
    """Clips, their brief captions, and the sources the clips were found in.

    ``published`` is an earlier output of the dedup stage that the clips are added to: what it and those
    before it kept is compared with, and stays.
    """

    clips: StageRef
    brief: StageRef
    source: str
    published: StageRef | None = None


def run_stage(
    inputs: DedupInputs,
    config: DedupConfig,
    store: Store,
    reject_stage: str,
    *,
    progress: Progress | None = None,
) -> tuple[Manifest, bool]:
    """Publish ``clips`` (those described, by id), their ``vectors``, ``neighbours`` and ``rejects``.

    Rows in are the clips that have a brief caption; the others were answered for by the brief stage. Further
    rows of the same clip (one content under two names, or one that is published) are rejected as
    ``exact_duplicate``, and clips whose looks cannot be decoded under the decoder's reason.

    Args:
        reject_stage: the stage the rejects name.

    Returns:
        What is published, and whether this run worked it out.

    Raises:
        UserError: the floor is too low for the embeddings, an encoder is unknown or cannot be loaded, earlier
            clips were described otherwise, or the source does not hold a clip as it was probed.
    """
    encoder = frame_encoder(config.visual_encoder)
    described_by = {"embedder": str(load_manifest(store, inputs.brief).config["embedder"])}
    if config.mode != "text":
        described_by["encoder"] = f"{encoder.name}@{encoder.revision}"
    hashes = [ref.content_hash for ref in (inputs.clips, inputs.brief, inputs.published) if ref is not None]
    asked = config.model_copy(update=_DECISIONS)
    output = ShardSet(store, STAGE, VERSION, inputs=hashes, config=asked, identity=described_by)
    if (earlier := output.published()) is not None:
        return earlier, False
    with output.writing(0) as done:
        if done is None:
            before = _published_clips(store, inputs.published, asked, described_by)
            output.commit(0, *_compared(inputs, asked, store, encoder, before, reject_stage, progress))
    return output.publish(1), done is None


def _compared(
    inputs: DedupInputs,
    config: DedupConfig,
    store: Store,
    encoder: FrameEncoder,
    before: Sequence[Described],
    reject_stage: str,
    progress: Progress | None,
) -> tuple[dict[str, pa.Table], dict[str, float]]:
    """Return the stage's tables and counts."""
    rows, embeddings = _captioned(inputs, store)
    published = {clip_id for part in before for clip_id in part.ids}
    clips, rejects = _distinct(rows, published, reject_stage)
    looks = None
    if config.mode != "text":
        found = _looks(clips, inputs.source, encoder, config, reject_stage, progress)
        clips, looks = found.clips, found.looks
        rejects += found.rejects
    ids = tuple(clip["clip_id"] for clip in clips)
    text = None
    if config.mode != "visual":
        text = embeddings.of(ids)
    own = Described(ids, text, looks)
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
        how = {name: made[name] for name in ("mode", "visual_frames", "visual_pooling")}
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


def published_outputs(store: Store, published: StageRef | None) -> Iterator[tuple[Manifest, set[str]]]:
    """Yield an output of the dedup stage with the ids it kept, the one it was added to, and so on."""
    while published is not None:
        output = load_manifest(store, published)
        yield output, set(read_table(store, published, "clips")["clip_id"].to_pylist())
        earlier = output.config.get("@published")
        published = StageRef.parse(earlier) if earlier else None


def _floor(described: Described, config: DedupConfig) -> float:
    if config.floor is not None:
        return config.floor
    rows = searched_rows(described.text, described.looks)
    return affordable_floor(rows, config.pairs_per_row, lowest=LOWEST_FLOOR, highest=HIGHEST_FLOOR)


class _Embeddings:
    """The embeddings of brief captions, by clip."""

    def __init__(self, brief: pa.Table) -> None:
        self._number = {clip_id: number for number, clip_id in enumerate(brief["clip_id"].to_pylist())}
        found = matrix(brief["embedding"])
        self._vectors = np.empty((0, 0), np.float32) if found is None else found

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._number

    def of(self, clip_ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return [clips, dimensions]."""
        return self._vectors[[self._number[clip_id] for clip_id in clip_ids]]


def _captioned(inputs: DedupInputs, store: Store) -> tuple[Rows, _Embeddings]:
    """Return the clips that have a brief caption, and the captions' embeddings.

    Raises:
        RuntimeError: a clip has neither a brief caption nor a reject that says why.
    """
    embeddings = _Embeddings(read_table(store, inputs.brief, "brief_captions"))
    refused = set(read_table(store, inputs.brief, "rejects")["row_id"].to_pylist())
    rows = []
    for clip in read_table(store, inputs.clips, "clips").to_pylist():
        if clip["clip_id"] in embeddings:
            rows.append(clip)
        elif clip["row_id"] not in refused:
            raise RuntimeError(f"{inputs.brief}: says nothing of row {clip['row_id']}")
    return rows, embeddings


def _distinct(rows: Sequence[Row], published: Collection[str], stage: str) -> tuple[list[Row], Rows]:
    """Return one row per clip, by id, and rejects for the others; the first by source name stays."""
    clips: dict[str, Row] = {}
    rejects = []
    for row in sorted(rows, key=lambda row: (row["clip_id"], row["source_uri"], row["row_id"])):
        if row["clip_id"] in published:
            sentence = "the same content as a published clip"
            rejects.append(reject_row(row, stage, "exact_duplicate", sentence))
            continue
        first = clips.setdefault(row["clip_id"], row)
        if first is not row:
            sentence = f"the same content as {first['source_uri']}"
            rejects.append(reject_row(row, stage, "exact_duplicate", sentence))
    return list(clips.values()), rejects


@dataclass(frozen=True, eq=False)
class _Looks:
    """Clips that can be decoded, their looks [clips, frames, dimensions], and rejects of the others."""

    clips: list[Row]
    looks: npt.NDArray[np.float32]
    rejects: Rows


def _looks(
    clips: Sequence[Row],
    source: str,
    encoder: FrameEncoder,
    config: DedupConfig,
    stage: str,
    progress: Progress | None,
) -> _Looks:
    """Encode each clip in the middle of each of ``visual_frames`` equal parts of it."""

    def middles_s(clip: Row) -> list[float]:
        length_s = clip["end_s"] - clip["start_s"]
        parts = config.visual_frames
        return [clip["start_s"] + length_s * (part + 0.5) / parts for part in range(parts)]

    seen: list[Row] = []
    looks, rejects = [], []
    found = clip_frames(
        clips,
        source,
        lambda path, clip: Samples(frames_at(path, middles_s(clip), max_side=LOOKS_MAX_SIDE)),
        encoder,
        most_frames=lambda clip: config.visual_frames,
    )
    for number, (clip, frames) in enumerate(found, start=1):
        if isinstance(frames, MediaError):
            rejects.append(media_reject(clip, stage, frames))
        else:
            assert frames.encodings is not None
            seen.append(clip)
            looks.append(_pooled(frames.encodings, config))
        if progress is not None:
            progress("clips", number, len(clips))
    per_clip = 1 if config.visual_pooling == "mean" else config.visual_frames
    return _Looks(seen, np.stack(looks) if looks else np.empty((0, per_clip, 1), np.float32), rejects)


def _pooled(encodings: npt.NDArray[np.float32], config: DedupConfig) -> npt.NDArray[np.float32]:
    if config.visual_pooling == "least_alike":
        return encodings
    mean = encodings.mean(axis=0, keepdims=True)
    length = np.linalg.norm(mean)
    return np.asarray(mean / (length if length > 0 else 1), np.float32)
