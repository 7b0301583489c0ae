"""The looks of clips: encodings of a few of their frames, for de-duplication.

Wide: ``plan`` divides the clips into shards of about equal work and ``run_shard`` works one out wherever it
is called; ``run_stage`` does what is left and publishes. Keyed by the clips and by how they are looked at, so
that neither a threshold nor another caption makes a clip be decoded again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from share4video.config import DedupConfig, LooksConfig
from share4video.curation.encoders import FrameEncoder, frame_encoder
from share4video.curation.samples import Samples
from share4video.dataset.shards import Manifest, ShardSet, canonical_json, table_from_rows
from share4video.media.decode import frames_at
from share4video.media.limits import MediaError
from share4video.stages.clip_frames import Row, clip_frames, media_reject
from share4video.stages.contract import Progress
from share4video.stages.dedup_inputs import STAGE as REJECTING_STAGE
from share4video.stages.dedup_inputs import DedupInputs, captioned, kept_before, unpublished
from share4video.stages.division import by_work
from share4video.store import Store

STAGE = "looks"
VERSION = "1"
MAX_SIDE = 640  # pixels; frames are only encoded here, and encoders look at less


def run_stage(
    inputs: DedupInputs, config: DedupConfig, store: Store, *, progress: Progress | None = None
) -> tuple[Manifest, int]:
    """Publish ``looks`` and ``rejects`` of the captioned clips that are not published yet.

    Returns:
        What is published, and how many shards this run worked out.

    Raises:
        UserError: the encoder is unknown or cannot be loaded, or the source does not hold a clip as it was
            probed.
    """
    clips = _clips(inputs, store)
    output = _output(clips, config, store)
    if (earlier := output.published()) is not None:
        return earlier, 0
    shards = by_work(clips, config.shards)
    computed = sum(
        _run_shard(output, shard, rows, inputs.source, config, progress) for shard, rows in enumerate(shards)
    )
    return output.publish(len(shards)), computed


def plan(inputs: DedupInputs, config: DedupConfig, store: Store) -> list[int]:
    """Return the shards to run; at least one, also where looks are not compared."""
    if config.mode == "text":
        return [0]
    return list(range(len(by_work(_clips(inputs, store), config.shards))))


def run_shard(
    inputs: DedupInputs, config: DedupConfig, store: Store, shard: int, *, progress: Progress | None = None
) -> bool:
    """Work out and commit one shard; return whether there was anything to do.

    Raises:
        UserError: as `run_stage` does.
    """
    if config.mode == "text":
        return False
    clips = _clips(inputs, store)
    rows = by_work(clips, config.shards)[shard]
    return _run_shard(_output(clips, config, store), shard, rows, inputs.source, config, progress)


def _clips(inputs: DedupInputs, store: Store) -> list[Row]:
    return unpublished(captioned(inputs, store), kept_before(store, inputs.published))[0]


def by_content(config: DedupConfig) -> DedupConfig:
    """Return the settings that outputs are keyed by: local weights are in them as the hash of their content.

    Raises:
        UserError: there is no such encoder, or its weights cannot be read.
    """
    if config.mode == "text":
        return config.without("visual_encoder")
    return config.model_copy(update={"visual_encoder": frame_encoder(config.visual_encoder).name})


def _output(clips: Sequence[Row], config: DedupConfig, store: Store) -> ShardSet:
    encoder = frame_encoder(config.visual_encoder)
    names = hashlib.sha256(canonical_json([[clip["clip_id"], clip["row_id"]] for clip in clips])).hexdigest()
    asked = by_content(config)
    looks = LooksConfig(**{name: getattr(asked, name) for name in LooksConfig.model_fields})
    identity = {"encoder": f"{encoder.name}@{encoder.revision}"}
    return ShardSet(store, STAGE, VERSION, inputs=[names], config=looks, identity=identity)


def _run_shard(
    output: ShardSet,
    shard: int,
    clips: Sequence[Row],
    source: str,
    config: DedupConfig,
    progress: Progress | None,
) -> bool:
    """Encode each clip in the middle of each of ``visual_frames`` equal parts of it."""

    def middles_s(clip: Row) -> list[float]:
        length_s = clip["end_s"] - clip["start_s"]
        parts = config.visual_frames
        return [clip["start_s"] + length_s * (part + 0.5) / parts for part in range(parts)]

    def frames(path: Any, clip: Row) -> Samples:
        span_s = (clip["start_s"], clip["end_s"])
        return Samples(
            frames_at(path, middles_s(clip), max_side=MAX_SIDE, mode=config.visual_decode, span_s=span_s)
        )

    with output.writing(shard) as done:
        if done is not None:
            return False
        encoder: FrameEncoder = frame_encoder(config.visual_encoder)
        looks: list[dict[str, Any]] = []
        rejects: list[dict[str, Any]] = []
        found = clip_frames(clips, source, frames, encoder, most_frames=lambda clip: config.visual_frames)
        for number, (clip, seen) in enumerate(found, start=1):
            if isinstance(seen, MediaError):
                rejects.append(media_reject(clip, REJECTING_STAGE, seen))
            else:
                assert seen.encodings is not None
                looks.append(_row(clip["clip_id"], seen.samples, _pooled(seen.encodings, config), config))
            if progress is not None:
                progress("clips", number, len(clips))
        reasons = Counter(reject["reason"] for reject in rejects)
        counts: dict[str, float] = {
            "rows_in": len(clips),
            "rows_out": len(looks),
            **{f"reject:{reason}": number for reason, number in sorted(reasons.items())},
        }
        tables = {"looks": table_from_rows("looks", looks), "rejects": table_from_rows("rejects", rejects)}
        output.commit(shard, tables, counts)
        return True


def _row(
    clip_id: str, samples: Samples, encodings: npt.NDArray[np.float32], config: DedupConfig
) -> dict[str, Any]:
    shift_s = max(abs(frame.shift_s) for frame in samples.frames)
    return {
        "clip_id": clip_id,
        "looks": encodings.ravel(),
        "frames": len(encodings),
        "shift_s": None if config.visual_decode == "exact" else shift_s,
    }


def _pooled(encodings: npt.NDArray[np.float32], config: DedupConfig) -> npt.NDArray[np.float32]:
    if config.visual_pooling == "least_alike":
        return encodings
    mean = encodings.mean(axis=0, keepdims=True)
    length = np.linalg.norm(mean)
    return np.asarray(mean / (length if length > 0 else 1), np.float32)
