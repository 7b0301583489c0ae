"""Motion energy: its unit, and the trigger it is for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.curation.encoders import Rgb, Vectors
from share4video.curation.keyframes import select
from share4video.curation.motion import energies


def grey(level: int, size: tuple[int, int] = (90, 160)) -> Rgb:
    return np.full((*size, 3), level, np.uint8)


def with_square(left: int) -> Rgb:
    frame = grey(60, (128, 128))
    frame[48:80, left : left + 32] = 188
    return frame


def test_the_unit_is_the_full_scale_of_luma() -> None:
    assert energies([]) == []
    assert energies([grey(0), grey(255), grey(255), grey(204)]) == pytest.approx([0, 1, 0, 0.2], abs=1e-3)


def test_a_square_counts_by_its_area_and_contrast() -> None:
    # It leaves a sixteenth of the picture and covers another, at half the scale.
    (_, moved) = energies([with_square(0), with_square(96)])
    assert moved == pytest.approx(2 / 16 * 128 / 255, rel=0.05)
    steps = energies([with_square(left) for left in (0, 8, 16, 24)])
    assert all(0 < step < moved for step in steps[1:])


def test_noise_is_hardly_motion() -> None:
    rng = np.random.default_rng(0)
    noisy = [np.clip(grey(120, (540, 960)) + rng.normal(0, 6, (540, 960, 3)), 0, 255) for _ in range(3)]
    assert max(energies([frame.astype(np.uint8) for frame in noisy])) < 0.003


def test_frames_of_two_sizes_are_an_error() -> None:
    with pytest.raises(ValueError, match="one size"):
        energies([grey(0), grey(0, (160, 90))])


def alike(count: int) -> Vectors:
    return np.ones((count, 1), np.float32)


def chosen(steps: list[float], bound: float | None) -> list[int]:
    found = select(alike(len(steps)), 0.9, motion=steps, motion_threshold=bound)
    return [key.sample for key in found]


# Sixteenths sum without rounding.
steps = st.lists(st.integers(0, 16).map(lambda part: part / 16), min_size=1, max_size=40)
bounds = st.integers(1, 64).map(lambda part: part / 16)


@given(steps, bounds)
def test_more_than_the_bound_never_passes_unseen(energy: list[float], bound: float) -> None:
    keys = chosen(energy, bound)
    assert keys[0] == 0 and keys[-1] == len(energy) - 1
    for early, late in zip(keys, keys[1:], strict=False):
        assert sum(energy[early + 1 : late]) <= bound
        assert late == len(energy) - 1 or sum(energy[early + 1 : late + 1]) > bound


@given(steps, bounds, bounds)
def test_a_lower_bound_keeps_no_fewer(energy: list[float], one: float, other: float) -> None:
    # True of this trigger alone: where similarity chooses, too, another choice may be alike for longer.
    assert len(chosen(energy, min(one, other))) >= len(chosen(energy, max(one, other)))


@given(st.integers(1, 40), bounds)
def test_where_nothing_moves_nothing_is_chosen_for_it(count: int, bound: float) -> None:
    assert chosen([0.0] * count, bound) == chosen([0.0] * count, None)


def test_a_bound_needs_energies() -> None:
    for motion in (None, [0.0]):
        with pytest.raises(ValueError, match="one energy per frame"):
            select(alike(2), 0.9, motion=motion, motion_threshold=0.1)
