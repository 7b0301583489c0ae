"""The key-frame stage: the frames of each clip that show something new, as JPEG with their true times.

Wide: ``plan`` divides the clips into shards of about equal work, ``run_shard`` works one out wherever it is
called, ``finish`` publishes them as one. What is published per clip does not depend on the division.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from share4video.config import KeyframeConfig
from share4video.curation import samples
from share4video.curation.encoders import FrameEncoder
from share4video.curation.keyframes import jpeg_bytes
from share4video.dataset.shards import Manifest, ShardSet, StageRef, table_from_rows
from share4video.media.limits import MediaError
from share4video.stages.clip_frames import DECODERS, ClipFrames, clip_frames, media_reject
from share4video.stages.contract import Progress, StageResult
from share4video.stages.division import clips_by_shard
from share4video.stages.outcome import refuse_empty, refuse_failures
from share4video.store import Store

STAGE = "keyframes"
VERSION = "1"


@dataclass(frozen=True)
class KeyframesInputs:
    """Clips (their table ``clips``), and the sources they were found in."""

    clips: StageRef
    source: str


def run_stage(
    inputs: KeyframesInputs,
    config: KeyframeConfig,
    store: Store,
    *,
    decoders: int = DECODERS,
    progress: Progress | None = None,
) -> StageResult:
    """Publish tables ``keyframes`` and ``rejects``; rows are clips, ``key_frames`` is counted beside them.

    Args:
        decoders: how many clips are decoded side by side; what is published does not depend on it.

    Raises:
        UserError: the encoder is unknown or its weights cannot be loaded, the source does not hold a clip as
            it was probed, no clip is left, or too many cannot be decoded; in the last two cases the rejects
            are published.
    """
    output = _output(inputs, config, store)
    shards = plan(inputs, config, store)
    earlier = output.published()
    if earlier is not None:
        return _finished(output, earlier, config, len(shards), 0)
    computed = sum(
        run_shard(inputs, config, store, shard, decoders=decoders, progress=progress) for shard in shards
    )
    return _finished(output, output.publish(len(shards)), config, len(shards), computed)


def plan(inputs: KeyframesInputs, config: KeyframeConfig, store: Store) -> list[int]:
    """Return the shards to run; at least one, also for no clips."""
    return list(range(len(clips_by_shard(store, inputs.clips, config.shards))))


def run_shard(
    inputs: KeyframesInputs,
    config: KeyframeConfig,
    store: Store,
    shard: int,
    *,
    decoders: int = DECODERS,
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
        encoder = samples.encoder_of(config)
        rows: list[dict[str, Any]] = []
        rejects: list[dict[str, Any]] = []
        found = clip_frames(
            clips,
            inputs.source,
            lambda path, clip: samples.sample(path, clip["start_s"], clip["end_s"], config),
            encoder,
            most_frames=lambda clip: samples.most_samples(clip["end_s"] - clip["start_s"], config),
            decoders=decoders,
        )
        for number, (clip, frames) in enumerate(found, start=1):
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
        UserError: no clip is left, or too many cannot be decoded.
    """
    output = _output(inputs, config, store)
    shards = len(plan(inputs, config, store))
    earlier = output.published()
    if earlier is not None:
        return _finished(output, earlier, config, shards, 0)
    return _finished(output, output.publish(shards), config, shards, None)


def _finished(
    output: ShardSet, manifest: Manifest, config: KeyframeConfig, shards: int, computed: int | None
) -> StageResult:
    result = StageResult.from_manifest(manifest, computed_shards=computed, total_shards=shards)
    refuse_empty(result, output.store, where=STAGE)
    share, setting = config.max_failed_share, "keyframes.max_failed_share"
    refuse_failures(result, output.store, max_share=share, setting=setting, where=STAGE)
    return result


def _output(inputs: KeyframesInputs, config: KeyframeConfig, store: Store) -> ShardSet:
    encoder = samples.encoder_of(config)
    asked = config.without("max_failed_share", "encoder")
    if encoder is not None:
        asked = asked.model_copy(update={"encoder": encoder.name})
    return ShardSet(
        store,
        STAGE,
        VERSION,
        inputs=[inputs.clips.content_hash],
        config=asked,
        identity={} if encoder is None else {"encoder": f"{encoder.name}@{encoder.revision}"},
    )


def _key_frames(
    clip_id: str, clip: ClipFrames, encoder: FrameEncoder | None, config: KeyframeConfig
) -> list[dict[str, Any]]:
    """Return the clip's rows of table ``keyframes``."""
    frames = clip.samples.frames
    return [
        {
            "clip_id": clip_id,
            "index": index,
            "timestamp_s": frames[key_frame.sample].timestamp_s,
            "similarity": key_frame.similarity,
            "jpeg": jpeg_bytes(
                frames[key_frame.sample].rgb, max_side=config.max_side, quality=config.jpeg_quality
            ),
        }
        for index, key_frame in enumerate(samples.choose(clip.samples, clip.encodings, encoder, config))
    ]
