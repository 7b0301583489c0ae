"""How much moves from one sampled frame to the next, whatever an encoder makes of it.

CLIP describes what a picture shows and hardly where it is, so fine motion stays above its threshold. Motion
energy sees nothing but change: each frame is reduced to a small grey picture and blurred a little, which
leaves out the codec's noise, and the energy between two is the mean absolute difference of their pixels.

Its unit is the full scale of luma: 0 where nothing changes, 1 where every pixel goes from black to white. A
square of a tenth of the picture's area that moves away from its place, at half the scale of contrast to its
ground, makes 0.1. A moving camera or a flicker of the light is motion, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from share4video.curation.encoders import Rgb

SIDE = 64  # pixels of the longer side
BLUR = 1.0  # standard deviation, in these pixels


def energies(frames: Sequence[Rgb]) -> list[float]:
    """Return the motion energy from the frame before to each of ``frames``, in 0..1; 0 for the first.

    Frames are [H, W, 3] uint8 RGB of one size, in order of time.

    Raises:
        ValueError: the frames differ in size.
    """
    found: list[float] = []
    before: npt.NDArray[np.int16] | None = None
    for frame in frames:
        small = _small(frame)
        if before is not None and before.shape != small.shape:
            raise ValueError("frames of one clip must have one size")
        found.append(0.0 if before is None else float(np.abs(small - before).mean()) / 255)
        before = small
    return found


def _small(frame: Rgb) -> npt.NDArray[np.int16]:
    grey = Image.fromarray(frame).convert("L")
    scale = min(1.0, SIDE / max(grey.size))
    width, height = (max(1, round(side * scale)) for side in grey.size)
    grey = grey.resize((width, height), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(BLUR))
    return np.asarray(grey, np.int16)
