"""Frames of a video at given moments, decoded in a guarded child process.

Mode ``exact`` gives the frame on show; ``nearest-iframe`` the codec key frame nearest to the moment, for a
small part of the work. Backend ``decord`` is for those who need its frames: it takes only plain files.

Times are seconds of presentation time after the first frame shown, whatever the container's own clock says.
The frame on show at ``t`` is the last one whose presentation time is at most ``t``: exact for variable frame
rates, B-frames, edit lists and starts other than zero. Nothing here is "index divided by frame rate".
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from share4video.errors import UserError
from share4video.media.guard import pool
from share4video.media.limits import Limits, MediaError

__all__ = [
    "Backend",
    "Frame",
    "Limits",
    "MediaError",
    "Mode",
    "frame_times",
    "frames_at",
    "frames_every",
    "uniform_frames",
]

Mode = Literal["exact", "nearest-iframe"]
Backend = Literal["pyav", "decord"]


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded picture.

    Attributes:
        timestamp_s: when it comes on show, in seconds after the first frame.
        rgb: (height, width, 3) uint8, upright.
        asked_s: the moment it answers for.
    """

    timestamp_s: float
    rgb: npt.NDArray[np.uint8]
    asked_s: float

    @property
    def shift_s(self) -> float:
        """How long before the moment asked for it comes on show; less than 0 where it comes after it."""
        return self.asked_s - self.timestamp_s

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
    mode: Mode = "exact",
    span_s: tuple[float | None, float | None] = (None, None),
    backend: Backend = "pyav",
    limits: Limits | None = None,
) -> list[Frame]:
    """Return the frame for each of ``timestamps_s``, in the order asked for.

    In mode ``exact`` that is the frame on show: a time after the end gives the last frame, ``timestamp_s`` is
    at most the time asked for, and asking for it again gives the same frame. In mode ``nearest-iframe`` it is
    the codec key frame nearest in presentation time, the earlier of two; ``Frame.shift_s`` says how far off.
    Where the file (or ``span_s``) has no key frame that can be shown alone, it is the frame on show.
    Times that show the same frame share its array.

    Args:
        max_side: scale pictures down so that no side is longer (area interpolation); None keeps their size.
        span_s: in mode ``nearest-iframe``, take only key frames that come on show from its start until before
            its end, so that a clip is not answered with its neighbour; None leaves an end open.
        backend: ``decord`` takes files of a constant frame rate alone, and reads them in order.

    Raises:
        ValueError: a time is negative or not finite, ``max_side`` is not positive, or decord is to find key
            frames.
        UserError: decord is asked for and not installed.
        MediaError: the file cannot be decoded, or not within ``limits``, or (``not_for_decord``) decord does
            not show it as its container says.
    """
    if any(not 0 <= time_s < math.inf for time_s in timestamps_s):
        raise ValueError(f"times must be finite and not negative, got {list(timestamps_s)}")
    if not timestamps_s:
        return []
    wanted = sorted({float(time_s) for time_s in timestamps_s})
    arguments = {"times_s": wanted, **_how(max_side, mode, span_s, backend)}
    found = _call("frames", path, arguments, limits)
    by_time = dict(zip(wanted, found, strict=True))
    return [by_time[float(time_s)] for time_s in timestamps_s]


def frames_every(
    path: str | Path, interval_s: float, *, max_side: int | None = None, limits: Limits | None = None
) -> Generator[Frame, None, None]:
    """Yield the frame on show every ``interval_s`` seconds, each frame once, while the file is read.

    What is held does not grow with the video. ``limits`` are those of one frame. Iterate in one thread at a
    time, and close the iterator where it is not read to its end: a worker is taken until then.

    Raises:
        ValueError: ``interval_s`` or ``max_side`` is not positive.
        MediaError: the file cannot be decoded (from here on), or not within ``limits``.
    """
    if not 0 < interval_s < math.inf or (max_side is not None and max_side < 1):
        raise ValueError(f"interval and side must be positive, got {interval_s} and {max_side}")
    arguments = {"interval_s": interval_s, "max_side": max_side}
    for time_s, rgb, asked_s in pool().stream("stream", os.path.abspath(path), arguments, limits or Limits()):
        yield Frame(time_s, rgb, asked_s)


def uniform_frames(
    path: str | Path,
    n: int,
    start_s: float | None = None,
    end_s: float | None = None,
    *,
    max_side: int | None = None,
    mode: Mode = "exact",
    backend: Backend = "pyav",
    limits: Limits | None = None,
) -> list[Frame]:
    """Return ``n`` frames spread evenly over the frames shown from ``start_s`` until before ``end_s``.

    Indices follow the released ShareGPT4Video-8B (``sampling.uniform_indices``) over the frames the video
    really shows; a span of fewer than ``n`` frames repeats some. In mode ``nearest-iframe`` each is replaced
    by the key frame of the span nearest to it, as in ``frames_at``.

    Raises:
        ValueError: ``n`` or ``max_side`` is not positive, the span is not one, or decord is to find key
            frames.
        UserError: decord is asked for and not installed.
        MediaError: the file cannot be decoded, or not within ``limits``, or (``not_for_decord``) decord does
            not show it as its container says.
    """
    start, end = start_s or 0.0, math.inf if end_s is None else end_s
    if n < 1 or not 0 <= start < end:
        raise ValueError(f"need a positive count and a span, got {n} frames from {start_s} to {end_s}")
    span_s = start, None if math.isinf(end) else end
    return _call("uniform", path, {"n": n, **_how(max_side, mode, span_s, backend)}, limits)


def _how(
    max_side: int | None, mode: Mode, span_s: tuple[float | None, float | None], backend: Backend
) -> dict[str, Any]:
    """Return the arguments that all operations share."""
    if max_side is not None and max_side < 1:
        raise ValueError(f"max_side must be positive, got {max_side}")
    if backend == "decord":
        if mode != "exact":
            raise ValueError(f"decord decodes in mode exact alone, not {mode}")
        if importlib.util.find_spec("decord") is None:
            raise UserError(
                "the decoder decord is not installed",
                fix="install share4video[curation] on x86-64, or decode with pyav",
            )
    start_s, end_s = span_s
    return {"max_side": max_side, "mode": mode, "start_s": start_s, "end_s": end_s, "backend": backend}


def _call(operation: str, path: str | Path, arguments: dict[str, Any], limits: Limits | None) -> list[Frame]:
    reply = pool().call(operation, os.path.abspath(path), arguments, limits or Limits())
    return [Frame(time_s, rgb, asked_s) for time_s, rgb, asked_s in reply.frames]
