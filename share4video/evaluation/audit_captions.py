"""The captions that the temporal audit compares: of one clip's key frames, in every order it is played."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from share4video.captioning.client import ChatClient
from share4video.captioning.clip import ClipRejected, stream_captions
from share4video.captioning.role_inputs import KeyFrame
from share4video.config import CaptionConfig
from share4video.evaluation.temporal_audit import Played, Playing, orders


async def caption_orders(
    clip: str, frames: Sequence[KeyFrame], captioner: ChatClient, config: CaptionConfig
) -> dict[Playing, Played]:
    """Caption a clip's key frames in the orders of `orders`, with the same machine, prompts and checks.

    Whatever the settings, there are no anchors and every difference is told from two key frames.
    Captions that stand in for a difference that failed are left out, as are orders of which nothing came.

    Args:
        clip: names it, for the shuffle and for what is sampled.
        frames: in order of time.

    Raises:
        UserError: the engine refuses the key or knows no such model.
    """
    settings = config.model_copy(
        update={
            "anchor_every_frames": None,
            "anchor_every_s": None,
            "max_fallback_share": 1.0,
            "window": 2,  # every key frame has a caption of its own to compare
        }
    )

    async def play(playing: Playing, order: Sequence[int]) -> Played | None:
        shown = in_order(frames, order)
        stream = stream_captions(
            shown, ["sliding"], captioner=captioner, config=settings, clip_id=f"{clip}/{playing}"
        )
        try:
            captions = [caption async for caption in stream]
        except ClipRejected:
            return None
        later = (None if caption.fallback else caption.caption for caption in captions[1:])
        return Played(order=tuple(order), captions=tuple(later))

    wanted = orders(clip, len(frames))
    found = await asyncio.gather(*(play(playing, order) for playing, order in wanted.items()))
    return {playing: played for playing, played in zip(wanted, found, strict=True) if played is not None}


def in_order(frames: Sequence[KeyFrame], order: Sequence[int]) -> list[KeyFrame]:
    """Return frames in another order, numbered anew.

    The times of the places stay, except that a clip played backwards has the gaps of its frames backwards.
    """
    times = [frame.timestamp_s for frame in frames]
    if list(order) == list(reversed(range(len(frames)))):
        times = [times[0] + times[-1] - time_s for time_s in reversed(times)]
    return [
        replace(frames[index], number=number, timestamp_s=time_s)
        for number, (index, time_s) in enumerate(zip(order, times, strict=True), 1)
    ]
