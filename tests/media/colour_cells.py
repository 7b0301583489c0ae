"""Clips of squares of known colours, coded by the book and tagged as coded."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

COLOURS = [(230, 20, 30), (20, 210, 40), (30, 40, 220), (240, 230, 20), (128, 128, 128), (200, 120, 60)]
CELL = 32  # pixels; a colour fills a square
MATRICES = {"bt709": (0.2126, 0.0722, 1), "bt601": (0.299, 0.114, 6), "bt2020": (0.2627, 0.0593, 9)}
LIMITED, FULL = 1, 2  # AVColorRange
PQ, HLG = 16, 18  # AVColorTransferCharacteristic


def to_yuv(rgb: np.ndarray, matrix: str, full: bool, bits: int) -> np.ndarray:
    """Return code values of RGB in 0 to 1 (ITU-R BT.601, BT.709 and BT.2020, section on digital coding)."""
    red, blue, _ = MATRICES[matrix]
    luma = rgb @ np.array([red, 1 - red - blue, blue])
    chroma = [(rgb[:, 2] - luma) / (2 * (1 - blue)), (rgb[:, 0] - luma) / (2 * (1 - red))]
    unit = 1 << (bits - 8)
    scale, offset, span = (256 * unit - 1, 0, 256 * unit - 1) if full else (219 * unit, 16 * unit, 224 * unit)
    values = [offset + scale * luma, *(128 * unit + span * part for part in chroma)]
    return np.clip(np.rint(np.stack(values, axis=1)), 0, 256 * unit - 1)


def write_cells(
    path: Path,
    rgb: np.ndarray,
    *,
    matrix: str,
    full: bool = False,
    bits: int = 8,
    transfer: int | None = None,
) -> Path:
    """Write a lossless clip of three frames with a square of each colour, and tags that say how."""
    pixels, kind = ("yuv444p", np.uint8) if bits == 8 else ("yuv444p10le", np.uint16)
    width = CELL * len(rgb)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = width, CELL, pixels
        codec = stream.codec_context
        codec.colorspace, codec.color_range = MATRICES[matrix][2], FULL if full else LIMITED
        if transfer is not None:
            codec.color_trc, codec.color_primaries = transfer, 9
        for index in range(3):
            frame = av.VideoFrame(width, CELL, pixels)
            for plane, values in zip(frame.planes, to_yuv(rgb, matrix, full, bits).T, strict=True):
                stored = np.zeros((CELL, plane.line_size // np.dtype(kind).itemsize), kind)
                stored[:, :width] = np.repeat(values, CELL)
                plane.update(stored.tobytes())
            frame.pts, frame.time_base = index, Fraction(1, 10)
            frame.colorspace, frame.color_range = codec.colorspace, codec.color_range
            if transfer is not None:
                frame.color_trc, frame.color_primaries = transfer, 9
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
