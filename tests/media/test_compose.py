"""Layouts: sizes as the released code gives them, and pixels where they belong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from share4video.media import compose

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
WHITE = (255, 255, 255)


def frames(count: int, size: tuple[int, int]) -> list[Image.Image]:
    return [Image.new("RGB", size, COLOURS[i % len(COLOURS)]) for i in range(count)]


def test_sizes_are_those_of_the_released_code(composition: dict[str, Any]) -> None:
    for case in composition["grid"]:
        shots = frames(case["frames"], tuple(case["frame_wh"]))
        assert compose.frame_grid(shots, long_side=None).size == tuple(case["canvas_wh"])
        assert compose.frame_grid(shots).size == tuple(case["resized_wh"])
    for case in composition["tall_strip"]:
        shots = frames(case["frames"], tuple(case["frame_wh"]))
        assert compose.tall_strip(shots).size == tuple(case["out_wh"])
    for case in composition["hd_transform"]:
        assert compose.hd_size(*case["in_wh"], case["hd_num"]) == tuple(case["out_wh"])
        image = Image.new("RGB", tuple(case["in_wh"]))
        assert compose.hd_transform(image, case["hd_num"]).size == tuple(case["out_wh"])


def test_every_part_of_the_golden_file_has_its_test(composition: dict[str, Any]) -> None:
    here = {"grid", "tall_strip", "hd_transform"}
    elsewhere = {"uniform_16", "anyres_336"}  # test_sampling.py, and test_samples.py of training
    assert set(composition) == here | elsewhere and all(composition.values())


def test_grid_places_frames_in_reading_order_between_white_bands() -> None:
    grid = compose.frame_grid(frames(5, (40, 30)), long_side=None)
    assert grid.size == (3 * 40 + 2 * 50, 3 * 30 + 2 * 50)
    for index in range(5):
        row, column = divmod(index, 3)
        left, top = column * 90, row * 80
        assert grid.crop((left, top, left + 40, top + 30)).getcolors() == [(1200, COLOURS[index])]
    assert grid.getpixel((40, 0)) == WHITE and grid.getpixel((89, 29)) == WHITE  # the band
    assert grid.crop((180, 80, 220, 110)).getcolors() == [(1200, WHITE)]  # a cell left over


def test_grid_limit_is_an_argument_and_never_enlarges() -> None:
    shots = frames(4, (64, 64))
    assert compose.frame_grid(shots, long_side=89).size == (89, 89)
    assert compose.frame_grid(shots, long_side=5000).size == (178, 178)


def test_grid_refuses_no_frames_and_mixed_sizes() -> None:
    with pytest.raises(ValueError, match="at least one"):
        compose.frame_grid([])
    with pytest.raises(ValueError, match="one size"):
        compose.frame_grid([Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))])


def test_pair_is_stacked_with_a_white_gap() -> None:
    first, second = frames(2, (32, 20))
    pair = compose.stacked_pair(first, second)
    assert pair.size == (32, 90)
    assert pair.crop((0, 0, 32, 20)).getcolors() == [(640, COLOURS[0])]
    assert pair.crop((0, 20, 32, 70)).getcolors() == [(1600, WHITE)]
    assert pair.crop((0, 70, 32, 90)).getcolors() == [(640, COLOURS[1])]


def test_strip_has_labels_frames_and_rules() -> None:
    strip = compose.tall_strip(frames(12, (320, 240)))
    assert strip.size == (440, 12 * 260 + 20)
    for index in range(12):
        top = 10 + index * 260
        assert strip.crop((100, top, 420, top + 240)).getcolors() == [(76800, COLOURS[index % 5])]
        label = strip.crop((0, top + 120, 100, top + 160)).convert("L")
        box = label.point(lambda value: 255 if value < 128 else 0).getbbox()
        assert box is not None and box[2] <= 100
        below = top + 240 + 10
        assert (strip.getpixel((300, below)) == (0, 0, 0)) == (index < 11)  # no rule after the last frame


def test_strip_numbers_its_frames() -> None:
    strip = compose.tall_strip(frames(3, (320, 240)))
    labels = [strip.crop((0, 130 + i * 260, 100, 170 + i * 260)).tobytes() for i in range(3)]
    assert len(set(labels)) == 3


@given(st.integers(1, 6000), st.integers(1, 6000), st.integers(1, 60))
def test_hd_size_is_whole_tiles_within_the_budget(width: int, height: int, hd_num: int) -> None:
    out = compose.hd_size(width, height, hd_num)
    assert out[0] % 336 == 0 and out[1] % 336 == 0
    assert (out[0] // 336) * (out[1] // 336) <= hd_num
    assert compose.hd_size(height, width, hd_num) == (out[1], out[0])


def test_hd_transform_centres_on_white() -> None:
    out = compose.hd_transform(Image.new("RGB", (640, 360), COLOURS[2]), 9)
    assert out.size == (1008, 672)
    assert out.getpixel((500, 0)) == WHITE and out.getpixel((500, 671)) == WHITE
    assert out.getpixel((0, 336)) == COLOURS[2] and out.getpixel((1007, 336)) == COLOURS[2]
    top = (672 - 567) // 2
    assert out.getpixel((500, top)) == COLOURS[2] and out.getpixel((500, top - 1)) == WHITE
