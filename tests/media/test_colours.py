"""Colours as the video names them: matrix, range, high dynamic range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from share4video.media import decode
from tests.media.clips import Rgb
from tests.media.colour_cells import CELL, COLOURS, HLG, MATRICES, PQ, to_yuv, write_cells


def cells(path: Path, **how: int) -> Rgb:
    """Return the colour in the middle of each square of the second frame."""
    (frame,) = decode.frames_at(path, [0.1], **how)
    height, width, _ = frame.rgb.shape
    return frame.rgb[height // 2, height // 2 : width : height]


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("bits", [8, 10])
def test_matrix_and_range_are_those_the_video_names(
    tmp_path: Path, matrix: str, full: bool, bits: int
) -> None:
    expected = np.array(COLOURS)
    clip = write_cells(tmp_path / "clip.mp4", expected / 255, matrix=matrix, full=full, bits=bits)
    assert np.abs(cells(clip).astype(int) - expected).max() <= 2
    assert np.abs(cells(clip, max_side=CELL * len(COLOURS) // 2).astype(int) - expected).max() <= 3


def test_the_matrices_differ(tmp_path: Path) -> None:
    """The test above could not tell them apart if the colours did not."""
    rgb = np.array(COLOURS) / 255
    codes = [to_yuv(rgb, matrix, False, 8) for matrix in MATRICES]
    assert min(np.abs(one - other).max() for one, other in zip(codes, codes[1:], strict=False)) > 5


def pq(nits: np.ndarray) -> np.ndarray:
    """Return the PQ signal of a luminance in cd/m2 (SMPTE ST 2084, equation 5)."""
    powered = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * powered) / (1 + 18.6875 * powered)) ** 78.84375


def hlg(light: np.ndarray) -> np.ndarray:
    """Return the HLG signal of scene light in 0 to 1 (ARIB STD-B67)."""
    bright = 0.17883277 * np.log(np.maximum(12 * light - 0.28466892, 1e-9)) + 0.55991073
    return np.where(light <= 1 / 12, np.sqrt(3 * light), bright)


def test_pq_becomes_srgb_with_reference_white_as_white(tmp_path: Path) -> None:
    nits = np.array([0.0, 1.0, 10.0, 50.0, 100.0, 203.0, 1000.0, 4000.0])
    grey = np.repeat(pq(nits)[:, None], 3, axis=1)
    clip = write_cells(tmp_path / "pq.mp4", grey, matrix="bt2020", bits=10, transfer=PQ)
    shown = cells(clip).astype(int)
    assert np.ptp(shown, axis=1).max() <= 2  # grey stays grey
    linear = nits / 203
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(shown[:, 0] - 255 * np.minimum(srgb, 1)).max() <= 8
    assert shown[0, 0] == 0 and (shown[6:] == 255).all()


def test_hlg_becomes_brighter_in_order(tmp_path: Path) -> None:
    light = np.array([0.0, 0.01, 0.05, 0.1, 0.2, 0.26])
    grey = np.repeat(hlg(light)[:, None], 3, axis=1)
    clip = write_cells(tmp_path / "hlg.mp4", grey, matrix="bt2020", bits=10, transfer=HLG)
    shown = cells(clip).astype(int)[:, 0]
    assert shown[0] == 0 and (np.diff(shown) > 0).all() and shown[-1] > 230
