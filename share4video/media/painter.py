"""Decoded frames as upright RGB arrays of one size. Runs in the guarded worker only (``guard.py``)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

Rgb = npt.NDArray[np.uint8]

_HIGH_DYNAMIC_RANGE = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)  # PQ and HLG


class Painter:
    """Turns decoded frames into upright RGB of one size.

    The first frame settles size and orientation; a stream that changes its size midway is scaled to that.
    (Orientation is also read only once because a PyAV frame whose side data was looked at belongs to a
    reference cycle: its pixels would wait for the garbage collector.)
    """

    def __init__(self, max_side: int | None) -> None:
        self._max_side = max_side
        self._size: tuple[int, int] | None = None
        self._turned, self._down, self._across = False, 1, 1
        self._reformatter = VideoReformatter()

    def paint(self, frame: VideoFrame) -> Rgb:
        """Return the frame as (height, width, 3) uint8, turned as its display matrix says.

        Sides are limited to ``max_side`` (area interpolation, never enlarged). Pixels are taken as square.
        Matrix and range are those the video names, BT.601 in limited range where it names none. High dynamic
        range (PQ, HLG) becomes sRGB: reference white (203 nits) is white, and brighter light is clipped.
        """
        if self._size is None:
            self._size = limited_size(frame.width, frame.height, self._max_side)
            self._turned, self._down, self._across = _orientation(frame)
        width, height = self._size
        scaled = (width, height) != (frame.width, frame.height)
        bright = frame.color_trc in _HIGH_DYNAMIC_RANGE
        picture = self._reformatter.reformat(
            frame,
            width,
            height,
            "rgb24",
            interpolation="AREA" if scaled else None,
            dst_color_trc=ColorTrc.IEC61966_2_1 if bright else None,
            dst_color_primaries=ColorPrimaries.BT709 if bright else None,
            threads=1,
        )
        rgb = picture.to_ndarray().astype(np.uint8, copy=False)
        upright = (rgb.swapaxes(0, 1) if self._turned else rgb)[:: self._down, :: self._across]
        return np.ascontiguousarray(upright)

    def shown_size(self, frame: VideoFrame) -> tuple[int, int]:
        """Return width and height of a painted frame as it is to be shown, before it is limited."""
        return (frame.height, frame.width) if self._turned else (frame.width, frame.height)


def limited_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """Return width and height scaled down, rounded, so that neither is over ``max_side``."""
    longest = max(width, height)
    if max_side is None or longest <= max_side:
        return width, height
    return max(1, round(width * max_side / longest)), max(1, round(height * max_side / longest))


def is_upright(frame: VideoFrame) -> bool:
    """Return whether the display matrix leaves the frame as it is stored."""
    return _orientation(frame) == (False, 1, 1)


def _orientation(frame: VideoFrame) -> tuple[bool, int, int]:
    """Return (axes swapped, step down, step across) of the display matrix; steps are 1 or -1 (mirrored).

    The matrix maps (x, y) to (a x + c y, b x + d y), y downwards. Angles other than quarter turns go to the
    nearest.
    """
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return False, 1, 1
    assert isinstance(side_data, SideData)
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(side_data), np.int32)[:5])
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if turned else (a, d)
    return turned, -1 if down < 0 else 1, -1 if across < 0 else 1
