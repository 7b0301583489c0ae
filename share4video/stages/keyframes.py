"""The key-frame stage: the frames of each clip that show something new, as JPEG with their true times.

Wide: ``plan`` divides the clips into shards of about equal work, ``run_shard`` works one out wherever it is
called, ``finish`` publishes them as one. What is published per clip does not depend on the division.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from share4video.config import KeyframeConfig
from share4video.curation.encoders import FrameEncoder, frame_encoder
from share4video.curation.keyframes import jpeg_bytes, select
from share4video.dataset.shards import ShardSet, StageRef, table_from_rows
from share4video.media import sampling
from share4video.media.decode import Frame
from share4video.media.limits import MediaError
from share4video.stages.clip_frames import Row, clip_frames, media_reject
from share4video.stages.contract import StageResult
from share4video.stages.division import clips_by_shard
from share4video.store import Store

STAGE = "keyframes"
VERSION = "1"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class KeyframesInputs:
    """Clips (their table ``clips``), and the sources they were found in."""

    clips: StageRef
    source: str


def run_stage(
    inputs: KeyframesInputs, config: KeyframeConfig, store: Store, *, progress: Progress | None = None
) -> StageResult:
    """Publish tables ``keyframes`` and ``rejects``; rows are clips, ``key_frames`` is counted beside them.

    Raises:
        UserError: the encoder is unknown or its weights cannot be loaded, or the source does not hold a clip
            as it was probed.
    """
    output = _output(inputs, config, store)
    shards = plan(inputs, config, store)
    earlier = output.published()
    if earlier is not None:
        return StageResult.from_manifest(earlier, computed_shards=0, total_shards=len(shards))
    computed = sum(run_shard(inputs, config, store, shard, progress=progress) for shard in shards)
    manifest = output.publish(len(shards))
    return StageResult.from_manifest(manifest, computed_shards=computed, total_shards=len(shards))


def plan(inputs: KeyframesInputs, config: KeyframeConfig, store: Store) -> list[int]:
    """Return the shards to run; at least one, also for no clips."""
    return list(range(len(clips_by_shard(store, inputs.clips, config.shards))))


def run_shard(
    inputs: KeyframesInputs,
    config: KeyframeConfig,
    store: Store,
    shard: int,
    *,
    progress: Progress | None = None,
) -> bool:
    """Work out and commit one shard; return whether there was anything to do.

    Raises:
        IndexError: there is no such shard.
        UserError: the source does not hold a clip as it was probed.
    """
    output = _output(inputs, config, store)
    with output.writing(shard) as done:
        if done is not None:
            return False
        clips = clips_by_shard(store, inputs.clips, config.shards)[shard]
        encoder = frame_encoder(config.encoder)
        rows: list[dict[str, Any]] = []
        rejects: list[dict[str, Any]] = []
        frames_of = clip_frames(clips, inputs.source, lambda c: _times_s(c, config), max_side=config.max_side)
        for number, (clip, frames) in enumerate(frames_of, start=1):
            if isinstance(frames, MediaError):
                rejects.append(media_reject(clip, STAGE, frames))
            else:
                rows += _key_frames(clip["clip_id"], frames, encoder, config)
            if progress is not None:
                progress("clips", number, len(clips))
        reasons = Counter(reject["reason"] for reject in rejects)
        counts = {
            "rows_in": len(clips),
            "rows_out": len(clips) - len(rejects),
            "metric:key_frames": len(rows),
            **{f"reject:{reason}": number for reason, number in sorted(reasons.items())},
        }
        tables = {"keyframes": rows, "rejects": rejects}
        output.commit(shard, {name: table_from_rows(name, held) for name, held in tables.items()}, counts)
        return True


def finish(inputs: KeyframesInputs, config: KeyframeConfig, store: Store) -> StageResult:
    """Publish the committed shards as one output; which of them this run worked out is not known here.

    Raises:
        RuntimeError: a shard is not committed.
    """
    output = _output(inputs, config, store)
    shards = len(plan(inputs, config, store))
    earlier = output.published()
    if earlier is not None:
        return StageResult.from_manifest(earlier, computed_shards=0, total_shards=shards)
    return StageResult.from_manifest(output.publish(shards), computed_shards=None, total_shards=shards)


def _output(inputs: KeyframesInputs, config: KeyframeConfig, store: Store) -> ShardSet:
    encoder = frame_encoder(config.encoder)
    return ShardSet(
        store,
        STAGE,
        VERSION,
        inputs=[inputs.clips.content_hash],
        config=config,
        identity={"encoder": f"{encoder.name}@{encoder.revision}"},
    )


def _times_s(clip: Row, config: KeyframeConfig) -> list[float]:
    length_s = clip["end_s"] - clip["start_s"]
    return [clip["start_s"] + time_s for time_s in sampling.every(length_s, config.interval_s)]


def _key_frames(
    clip_id: str, frames: Sequence[Frame], encoder: FrameEncoder, config: KeyframeConfig
) -> list[dict[str, Any]]:
    """Return the clip's rows of table ``keyframes``."""
    shown = {frame.timestamp_s: frame for frame in frames}  # slow videos show one frame at several samples
    times_s = sorted(shown)
    pictures = [shown[time_s].rgb for time_s in times_s]
    threshold = encoder.threshold if config.threshold is None else config.threshold
    chosen = select(encoder.encode(pictures), threshold, timestamps_s=times_s, max_gap_s=config.max_gap_s)
    return [
        {
            "clip_id": clip_id,
            "index": index,
            "timestamp_s": times_s[key_frame.sample],
            "similarity": key_frame.similarity,
            "jpeg": jpeg_bytes(
                pictures[key_frame.sample], max_side=config.max_side, quality=config.jpeg_quality
            ),
        }
        for index, key_frame in enumerate(chosen)
    ]
