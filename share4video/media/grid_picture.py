"""The chat model's picture of a clip: uniform frames on one grid, as JPEG."""

from __future__ import annotations

import io
from pathlib import Path

from share4video.media import compose, decode

JPEG_QUALITY = 95


def grid_picture(
    path: Path, start_s: float, end_s: float, *, frames: int, quality: int = JPEG_QUALITY
) -> bytes:
    """Return the grid of ``frames`` frames from ``start_s`` until before ``end_s`` as a JPEG file.

    Raises:
        MediaError: the file cannot be decoded.
    """
    shown = decode.uniform_frames(path, frames, start_s, end_s)
    target = io.BytesIO()
    compose.frame_grid([frame.image for frame in shown]).save(target, "JPEG", quality=quality)
    return target.getvalue()
