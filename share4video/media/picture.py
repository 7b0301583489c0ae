"""A picture somebody else made, decoded in a guarded child process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from share4video.media.guard import pool
from share4video.media.limits import Limits

__all__ = ["Picture", "read_picture"]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that can be decoded.

    Attributes:
        format: Pillow's name of its format, as ``JPEG``.
        width, height: in pixels, upright.
        rgb: (height, width, 3) uint8, upright; None where it was not asked for.
    """

    format: str
    width: int
    height: int
    rgb: npt.NDArray[np.uint8] | None


def read_picture(
    path: str | Path, formats: Sequence[str], *, pixels: bool = False, limits: Limits | None = None
) -> Picture:
    """Decode a picture's file, of an animation the first picture.

    Args:
        formats: Pillow's names of the formats it may have.
        pixels: whether its pixels are wanted.

    Raises:
        MediaError: it has another format (``not_picture``), cannot be decoded, or not within ``limits``.
    """
    arguments = {"formats": list(formats), "pixels": pixels}
    reply = pool().call("picture", os.path.abspath(path), arguments, limits or Limits())
    return Picture(**reply.facts, rgb=reply.frames[0][1] if reply.frames else None)
