"""Small real clips whose frames can be told apart."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, FRAMES, FPS = 64, 48, 48, 8


def grey_level(frame: int) -> int:
    """Return the level that every pixel of a frame has."""
    return 20 + 4 * frame


def write_clip(path: Path, *, frames: int = FRAMES, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """Write an H.264 clip whose frames get lighter from black towards white."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "1"}
        for index in range(frames):
            level = min(255, grey_level(index))
            picture = np.full((height, width, 3), level, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
