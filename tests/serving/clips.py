"""Small real clips whose frames can be told apart."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT, FRAMES, FPS = 64, 48, 48, 8


def grey_level(frame: int) -> int:
    """Return the level that every pixel of a frame has."""
    return 20 + 4 * frame


def write_clip(path: Path) -> Path:
    """Write an H.264 clip whose frames get lighter from black towards white."""
    return _write(path, (np.full((HEIGHT, WIDTH, 3), grey_level(index), np.uint8) for index in range(FRAMES)))


def write_noise(path: Path) -> Path:
    """Write a clip of coloured noise: nothing like the synthetic world."""
    rng = np.random.default_rng(0)
    return _write(path, (rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(FRAMES)))


def _write(path: Path, pictures: Iterable[npt.NDArray[np.uint8]]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "1"}
        for picture in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
