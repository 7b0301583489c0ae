"""A clip as Video-LLaVA sees it: a few frames from the first to the last, kept as one picture of squares.

A strip is what training data holds of a clip, as a grid is for the chat model that sees pictures: decoded
once, and small. Squares stand one below the other, so a strip of side s and n frames is s x n*s.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from share4video.media import decode, sampling
from share4video.media.decode import Frame
from share4video.media.grid_picture import JPEG_QUALITY
from share4video.media.limits import Limits

FRAMES = 8  # of the released Video-LLaVA
SIDE = 224  # pixels, of its towers; 14 JPEG blocks of 16, so that no block holds two frames
_END_S = 1e9


def spanning_frames(
    path: str | Path,
    n: int = FRAMES,
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    limits: Limits | None = None,
) -> list[Frame]:
    """Return ``n`` frames from the first to the last shown from ``start_s`` until before ``end_s``.

    Indices follow `sampling.spanning_indices` over the frames the video really shows.

    Raises:
        ValueError: ``n`` is not positive, or the span is not one.
        MediaError: the file cannot be decoded, or not within ``limits``.
    """
    times_s, _ = decode.frame_times(path, start_s, _END_S if end_s is None else end_s, limits=limits)
    chosen = [times_s[index] for index in sampling.spanning_indices(len(times_s), n)]
    return decode.frames_at(path, chosen, limits=limits)


def frame_strip(
    path: Path, start_s: float, end_s: float, *, frames: int, side: int = SIDE, quality: int = JPEG_QUALITY
) -> bytes:
    """Return the strip of ``frames`` frames of a span as a JPEG file.

    Each is scaled so that its shorter side is ``side`` and cut to the square in its middle, as the model's
    processor does.

    Raises:
        MediaError: the file cannot be decoded.
    """
    shown = spanning_frames(path, frames, start_s, end_s)
    size = (side, side)
    squares = [ImageOps.fit(frame.image, size, Image.Resampling.BICUBIC) for frame in shown]
    target = io.BytesIO()
    column = np.concatenate([np.asarray(square) for square in squares])
    Image.fromarray(column).save(target, "JPEG", quality=quality)
    return target.getvalue()


def strip_frames(size: tuple[int, int]) -> int:
    """Return how many frames a strip of (height, width) pixels holds.

    Raises:
        ValueError: it is no strip of squares.
    """
    height, width = size
    if not 0 < width <= height or height % width:
        raise ValueError(f"{width} x {height} pixels are no squares one below the other")
    return height // width


def split_strip(strip: Image.Image) -> Sequence[Image.Image]:
    """Return the frames of a strip. Raises ValueError where it is none."""
    side = strip.width
    count = strip_frames((strip.height, strip.width))
    return [strip.crop((0, index * side, side, (index + 1) * side)) for index in range(count)]
