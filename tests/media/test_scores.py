"""What pictures are said to show: black, one colour, frozen, motion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.media.painter import Rgb
from share4video.media.scores import Scores


def flat(level: int, *, side: int = 64) -> Rgb:
    return np.full((side * 9 // 16, side, 3), level, np.uint8)


def with_spot(level: int, spot: int, *, at: int = 8, size: int = 8) -> Rgb:
    picture = flat(level)
    picture[at : at + size, at : at + size] = spot
    return picture


def noisy(picture: Rgb, amount: int, seed: int) -> Rgb:
    noise = np.random.default_rng(seed).integers(-amount, amount + 1, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def scored(*pictures: Rgb) -> dict[str, float | None]:
    scores = Scores()
    for picture in pictures:
        scores.add(picture)
    return scores.facts()


def test_black_is_of_one_colour_and_one_colour_is_not_black() -> None:
    found = scored(flat(10), flat(200), with_spot(10, 200), with_spot(90, 200))
    assert (found["black_share"], found["single_colour_share"]) == (0.25, 0.5)


def test_a_flat_picture_may_be_noisy_and_have_a_speck() -> None:
    assert scored(noisy(flat(120), 6, 0))["single_colour_share"] == 1
    assert scored(with_spot(120, 250, size=5))["single_colour_share"] == 1  # 25 of 2304 pixels
    assert scored(with_spot(120, 250, size=8))["single_colour_share"] == 0
    slope = np.repeat(np.linspace(100, 160, 64).astype(np.uint8)[None, :, None], 36, 0).repeat(3, 2)
    assert scored(slope)["single_colour_share"] == 0  # a sky


def test_noise_is_frozen_and_a_small_movement_is_not() -> None:
    still = with_spot(60, 180, size=4)
    frozen = scored(noisy(still, 4, 1), noisy(still, 4, 2), noisy(still, 4, 3))
    assert frozen["frozen_share"] == 1
    moved = with_spot(60, 180, at=9, size=4)
    assert scored(still, moved)["frozen_share"] == 0
    assert scored(still, still, moved, moved, moved)["frozen_share"] == 0.75
    assert frozen["motion"] > scored(still, still)["motion"] == 0  # type: ignore[operator]


def test_motion_is_a_share_of_full_brightness() -> None:
    assert scored(flat(0), flat(255))["motion"] == pytest.approx(1)
    assert scored(flat(0), flat(51), flat(51))["motion"] == pytest.approx(0.1)


def test_a_single_picture_neither_moves_nor_stands_still() -> None:
    assert scored(flat(90)) == {
        "black_share": 0,
        "single_colour_share": 1,
        "frozen_share": None,
        "motion": None,
    }


@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=6))
def test_every_score_is_a_share(seeds: list[int]) -> None:
    pictures = [np.random.default_rng(seed).integers(0, 256, (9, 16, 3), np.uint8) for seed in seeds]
    found = scored(*pictures)
    assert set(found) == set(Scores.NAMES)
    assert all(value is None or 0 <= value <= 1 for value in found.values())
