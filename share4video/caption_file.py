"""Captions of one video file, for the command line: key frames, engines and captions in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

from share4video.captioning.client import ChatClient
from share4video.captioning.clip import ClipRejected, ClipRole, SpanCaption, stream_captions
from share4video.captioning.domain_guard import engine_domain, refuse_foreign_clip, refuse_mixed
from share4video.captioning.engine import connect_all
from share4video.captioning.roles import KeyFrame
from share4video.config import CaptionConfig, EngineSpec, KeyframeConfig
from share4video.curation.keyframes import cut_bound, jpeg_bytes
from share4video.curation.samples import Samples, choose, encoder_of, sample
from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.media.probe import probe


def sampled_frames(path: Path, config: KeyframeConfig) -> Samples:
    """Decode the frames of a clip that are looked at, each once, in order of time.

    Raises:
        UserError: the file is no video that can be decoded, or none for the configured mode.
    """
    try:
        return sample(path, 0.0, probe(path).duration_s, config)
    except MediaError as error:
        raise UserError(error.sentence, where=str(path), fix="give a video file") from error


def key_frames(samples: Samples, config: KeyframeConfig) -> list[KeyFrame]:
    """Choose the key frames among a clip's sampled frames, as the keyframes stage does."""
    encoder = encoder_of(config)
    encodings = None if encoder is None else encoder.encode(samples.pictures)
    frames = samples.frames
    return [
        KeyFrame(
            number,
            frames[one.sample].timestamp_s,
            jpeg_bytes(frames[one.sample].rgb, max_side=config.max_side, quality=config.jpeg_quality),
            one.similarity,
        )
        for number, one in enumerate(choose(samples, encodings, encoder, config), 1)
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
    samples = sampled_frames(path, keyframes or KeyframeConfig())
    refuse_foreign_clip(domain, samples.pictures, model=models[0], where=str(path))
    frames = key_frames(samples, keyframes or KeyframeConfig())
    cuts = cut_bound(config or CaptionConfig(), (keyframes or KeyframeConfig()).encoder)

    async def run() -> list[SpanCaption]:
        captions = []
        with connect_all([captioner, summarizer or captioner]) as endpoints:
            async with ChatClient(endpoints[0]) as first, ChatClient(endpoints[1]) as second:
                stream = stream_captions(
                    frames, roles, captioner=first, summarizer=second, config=config, cut_threshold=cuts
                )
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
