"""Captions of one video file, for the command line: key frames, engines and captions in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from share4video.captioning.client import ChatClient
from share4video.captioning.clip import ClipRejected, ClipRole, SpanCaption, stream_captions
from share4video.captioning.domain_guard import engine_domain, refuse_foreign_clip, refuse_mixed
from share4video.captioning.engine import connect_all
from share4video.captioning.roles import KeyFrame
from share4video.config import CaptionConfig, EngineSpec, KeyframeConfig
from share4video.curation.encoders import frame_encoder
from share4video.curation.keyframes import jpeg_bytes, select
from share4video.errors import UserError
from share4video.media.decode import Frame, frames_at
from share4video.media.limits import MediaError
from share4video.media.probe import probe
from share4video.media.sampling import every


def sampled_frames(path: Path, config: KeyframeConfig) -> list[Frame]:
    """Decode a clip's frames at the sampling interval, each once, in order of time.

    Raises:
        UserError: the file is no video that can be decoded.
    """
    try:
        times_s = every(probe(path).duration_s, config.interval_s)
        frames = frames_at(path, times_s, max_side=config.max_side)
    except MediaError as error:
        raise UserError(error.sentence, where=str(path), fix="give a video file") from error
    by_time = {frame.timestamp_s: frame for frame in frames}  # slow video shows one frame at several samples
    return [by_time[time_s] for time_s in sorted(by_time)]


def key_frames(frames: Sequence[Frame], config: KeyframeConfig) -> list[KeyFrame]:
    """Choose the key frames among a clip's sampled frames, as the keyframes stage does."""
    encoder = frame_encoder(config.encoder)
    threshold = encoder.threshold if config.threshold is None else config.threshold
    encodings = encoder.encode([frame.rgb for frame in frames])
    times_s = [frame.timestamp_s for frame in frames]
    chosen = select(encodings, threshold, timestamps_s=times_s, max_gap_s=config.max_gap_s)
    return [
        KeyFrame(
            number,
            times_s[one.sample],
            jpeg_bytes(frames[one.sample].rgb, max_side=config.max_side, quality=config.jpeg_quality),
        )
        for number, one in enumerate(chosen, 1)
    ]


def caption_clip(
    path: Path,
    roles: Collection[ClipRole],
    captioner: EngineSpec,
    summarizer: EngineSpec | None = None,
    *,
    keyframes: KeyframeConfig | None = None,
    config: CaptionConfig | None = None,
    on_caption: Callable[[SpanCaption], None] | None = None,
) -> list[SpanCaption]:
    """Caption one video file.

    Args:
        on_caption: called with each caption as it comes.

    Raises:
        UserError: the file is no video that can be decoded, the models know only synthetic clips and this is
            none, one of them does and the other does not, an engine does not start, or no sound captions came
            of it.
    """
    domain, models = engine_domain(captioner), [_name(captioner), _name(summarizer or captioner)]
    refuse_mixed(domain, engine_domain(summarizer or captioner), names=(models[0], models[1]))
    pictures = sampled_frames(path, keyframes or KeyframeConfig())
    refuse_foreign_clip(domain, [frame.rgb for frame in pictures], model=models[0], where=str(path))
    frames = key_frames(pictures, keyframes or KeyframeConfig())

    async def run() -> list[SpanCaption]:
        captions = []
        with connect_all([captioner, summarizer or captioner]) as endpoints:
            async with ChatClient(endpoints[0]) as first, ChatClient(endpoints[1]) as second:
                stream = stream_captions(frames, roles, captioner=first, summarizer=second, config=config)
                async for caption in stream:
                    captions.append(caption)
                    if on_caption is not None:
                        on_caption(caption)
        return captions

    try:
        return asyncio.run(run())
    except ClipRejected as error:
        raise UserError(f"no captions: {error}", where=str(path), fix="try another engine") from error


def _name(spec: EngineSpec) -> str:
    return spec.model or Path(spec.model_path or spec.url or spec.inference_service or "").name
