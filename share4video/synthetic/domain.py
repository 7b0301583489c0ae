"""Whether a clip is of the synthetic world: the only clips the nano models may be asked about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from share4video.synthetic.render import PALETTE

# Encoded synthetic frames have at least 0.98 of their pixels explained and a roughness below 0.8; real clips
# miss at least one of the bounds.
MIN_EXPLAINED = 0.97
MAX_ROUGHNESS = 1.2
_GREY_CHROMA = 28  # spread of R, G and B of the grey ground after encoding
_COLOUR_DISTANCE = 75.0


def is_synthetic(frames: Sequence[npt.NDArray[np.uint8]]) -> bool:
    """Whether every frame (RGB uint8, [height, width, 3]) is smooth grey ground with flat palette shapes."""
    return bool(frames) and all(
        explained >= MIN_EXPLAINED and roughness <= MAX_ROUGHNESS
        for explained, roughness in map(measure, frames)
    )


def measure(frame: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return the share of pixels that are grey or of a palette colour, and the ground's roughness.

    Roughness is the mean absolute second difference of brightness (0 to 255) along rows of the grey ground:
    near zero for smooth texture, several units for photographs, infinite where there is hardly any ground.
    """
    rgb = frame.astype(np.float32)
    grey = rgb.max(axis=2) - rgb.min(axis=2) <= _GREY_CHROMA
    coloured = np.zeros_like(grey)
    for colour in PALETTE.values():
        coloured |= np.linalg.norm(rgb - np.array(colour, np.float32), axis=2) <= _COLOUR_DISTANCE
    luma = rgb.mean(axis=2)
    bend = np.abs(luma[:, 2:] - 2 * luma[:, 1:-1] + luma[:, :-2])
    ground = grey[:, 1:-1] & grey[:, 2:] & grey[:, :-2]
    if ground.mean() < 0.3:
        return 0.0, float("inf")
    return float((grey | coloured).mean()), float(bend[ground].mean())
