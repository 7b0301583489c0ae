"""Captions of one video file: key frames, engines and captions in one call, at once or while it is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

from share4video.captioning.client import ChatClient
from share4video.captioning.clip import ClipRejected, ClipRole, SpanCaption, stream_captions
from share4video.captioning.domain_guard import Domain, engine_domain, refuse_foreign_clip, refuse_mixed
from share4video.captioning.engine import connect_all
from share4video.captioning.following import follow_captions
from share4video.captioning.roles import KeyFrame
from share4video.config import CaptionConfig, EngineSpec, KeyframeConfig
from share4video.curation.following import FollowedFrame, check_mode, follow
from share4video.curation.keyframes import cut_bound, jpeg_bytes
from share4video.curation.samples import Samples, choose, encoder_of, sample
from share4video.errors import UserError
from share4video.media.decode import Frame, frames_every
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
    domain = _domain(captioner, summarizer)
    samples = sampled_frames(path, keyframes or KeyframeConfig())
    refuse_foreign_clip(domain, samples.pictures, model=_name(captioner), where=str(path))
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


def follow_clip(
    path: Path,
    captioner: EngineSpec,
    summarizer: EngineSpec | None = None,
    *,
    on_caption: Callable[[SpanCaption], None],
    keyframes: KeyframeConfig | None = None,
    config: CaptionConfig | None = None,
) -> None:
    """Caption a video file of any length while it is read; what is held does not grow with it.

    Args:
        on_caption: called with each caption as it comes: of key frames, of parts, and at last of the whole.

    Raises:
        UserError: as `caption_clip` does, or the key frames' mode needs the whole clip. What was told until
            then stays told.
    """
    keyframes, config = keyframes or KeyframeConfig(), config or CaptionConfig()
    check_mode(keyframes)
    domain = _domain(captioner, summarizer)
    cuts = cut_bound(config, keyframes.encoder)

    def known(frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            refuse_foreign_clip(domain, [frame.rgb], model=_name(captioner), where=str(path))
            yield frame

    async def run(frames: Iterator[KeyFrame]) -> None:
        with connect_all([captioner, summarizer or captioner]) as endpoints:
            async with ChatClient(endpoints[0]) as first, ChatClient(endpoints[1]) as second:
                async for caption in follow_captions(
                    frames, captioner=first, summarizer=second, config=config, cut_threshold=cuts
                ):
                    on_caption(caption)

    sampled = frames_every(path, keyframes.interval_s, max_side=keyframes.max_side)
    with closing(sampled):
        try:
            frames = _encoded(follow(known(sampled), keyframes), keyframes)
            first = next(frames)  # what is no video, or a foreign one, is refused before engines start
            asyncio.run(run(chain([first], frames)))
        except MediaError as error:
            raise UserError(error.sentence, where=str(path), fix="give a video file") from error
        except ClipRejected as error:
            raise UserError(f"no captions: {error}", where=str(path), fix="try another engine") from error


def _encoded(frames: Iterator[FollowedFrame], config: KeyframeConfig) -> Iterator[KeyFrame]:
    for number, one in enumerate(frames, 1):
        jpeg = jpeg_bytes(one.frame.rgb, max_side=config.max_side, quality=config.jpeg_quality)
        yield KeyFrame(number, one.frame.timestamp_s, jpeg, one.similarity)


def _domain(captioner: EngineSpec, summarizer: EngineSpec | None) -> Domain:
    """Return which clips the models know. Raises UserError where they do not know the same."""
    domain, other = engine_domain(captioner), engine_domain(summarizer or captioner)
    refuse_mixed(domain, other, names=(_name(captioner), _name(summarizer or captioner)))
    return domain


def _name(spec: EngineSpec) -> str:
    return spec.model or Path(spec.model_path or spec.url or spec.inference_service or "").name
