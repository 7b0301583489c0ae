"""Frames of a video at given moments, decoded in a guarded child process.

Times are seconds of presentation time after the first frame shown, whatever the container's own clock says.
The frame on show at ``t`` is the last one whose presentation time is at most ``t``: exact for variable frame
rates, B-frames, edit lists and starts other than zero. Nothing here is "index divided by frame rate".
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from share4video.media.guard import pool
from share4video.media.limits import Limits, MediaError
from share4video.media.sources import source_path

__all__ = ["Frame", "Limits", "MediaError", "frame_times", "frames_at", "source_path", "uniform_frames"]


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded picture.

    Attributes:
        timestamp_s: when it comes on show, in seconds after the first frame.
        rgb: (height, width, 3) uint8, upright.
    """

    timestamp_s: float
    rgb: npt.NDArray[np.uint8]

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.rgb)


def frame_times(
    path: str | Path, start_s: float, end_s: float, *, limits: Limits | None = None
) -> tuple[list[float], float]:
    """Return when each frame shown from ``start_s`` until before ``end_s`` comes on show, and the frame rate.

    Nothing is decoded. ``frames_at`` gives a frame for its own time. The rate, in frames per second, is the
    one the container declares, which for a constant rate is exact where the mean of rounded times is not; 0
    where it declares none.

    Raises:
        ValueError: the span is not one.
        MediaError: the file cannot be read, or not within ``limits``.
    """
    if not 0 <= start_s < end_s < math.inf:
        raise ValueError(f"need a span, got {start_s} to {end_s}")
    arguments = {"start_s": start_s, "end_s": end_s}
    facts = pool().call("times", os.path.abspath(path), arguments, limits or Limits()).facts
    return facts["times_s"], facts["fps"]


def frames_at(
    path: str | Path,
    timestamps_s: Sequence[float],
    *,
    max_side: int | None = None,
    limits: Limits | None = None,
) -> list[Frame]:
    """Return the frame on show at each of ``timestamps_s``, in the order asked for.

    A time after the end gives the last frame. The ``timestamp_s`` of a frame is its own presentation time,
    so it is at most the time asked for; asking for it again gives the same frame. Times that show the same
    frame share its array.

    Args:
        max_side: scale pictures down so that no side is longer (area interpolation); None keeps their size.

    Raises:
        ValueError: a time is negative or not finite, or ``max_side`` is not positive.
        MediaError: the file cannot be decoded, or not within ``limits``.
    """
    if any(not 0 <= time_s < math.inf for time_s in timestamps_s):
        raise ValueError(f"times must be finite and not negative, got {list(timestamps_s)}")
    if not timestamps_s:
        return []
    wanted = sorted({float(time_s) for time_s in timestamps_s})
    found = _call("frames", path, {"times_s": wanted, "max_side": _checked(max_side)}, limits)
    by_time = dict(zip(wanted, found, strict=True))
    return [by_time[float(time_s)] for time_s in timestamps_s]


def uniform_frames(
    path: str | Path,
    n: int,
    start_s: float | None = None,
    end_s: float | None = None,
    *,
    max_side: int | None = None,
    limits: Limits | None = None,
) -> list[Frame]:
    """Return ``n`` frames spread evenly over the frames shown from ``start_s`` until before ``end_s``.

    Indices follow the released ShareGPT4Video-8B (``sampling.uniform_indices``) over the frames the video
    really shows; a span of fewer than ``n`` frames repeats some.

    Raises:
        ValueError: ``n`` or ``max_side`` is not positive, or the span is not one.
        MediaError: the file cannot be decoded, or not within ``limits``.
    """
    start, end = start_s or 0.0, math.inf if end_s is None else end_s
    if n < 1 or not 0 <= start < end:
        raise ValueError(f"need a positive count and a span, got {n} frames from {start_s} to {end_s}")
    arguments = {
        "n": n,
        "start_s": start,
        "end_s": None if math.isinf(end) else end,
        "max_side": _checked(max_side),
    }
    return _call("uniform", path, arguments, limits)


def _checked(max_side: int | None) -> int | None:
    if max_side is not None and max_side < 1:
        raise ValueError(f"max_side must be positive, got {max_side}")
    return max_side


def _call(operation: str, path: str | Path, arguments: dict[str, Any], limits: Limits | None) -> list[Frame]:
    reply = pool().call(operation, os.path.abspath(path), arguments, limits or Limits())
    return [Frame(time_s, rgb) for time_s, rgb in reply.frames]
