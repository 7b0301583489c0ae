"""Sampling times and indices."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.media import sampling


def test_uniform_indices_are_those_of_the_released_code(composition: dict[str, Any]) -> None:
    for n_frames, expected in composition["uniform_16"].items():
        assert sampling.uniform_indices(int(n_frames), 16) == expected


@given(st.integers(1, 100_000), st.integers(1, 64))
def test_uniform_indices_are_in_order_and_in_range(n_frames: int, n: int) -> None:
    indices = sampling.uniform_indices(n_frames, n)
    assert len(indices) == n
    assert indices == sorted(indices)
    assert indices[0] >= 0 and indices[-1] < n_frames


@pytest.mark.parametrize(
    ("duration_s", "interval_s", "times"),
    [
        (10.0, 2.0, [0, 2, 4, 6, 8]),
        (10.01, 2.0, [0, 2, 4, 6, 8, 10]),
        (1.5, 2.0, [0]),
        (0.0, 2.0, [0]),
        (1.0, 0.25, [0, 0.25, 0.5, 0.75]),
        (7.1 + 10 - 7.1, 2.0, [0, 2, 4, 6, 8]),  # 10.000000000000002: the end of a span less its start
    ],
)
def test_every_stops_before_the_end(duration_s: float, interval_s: float, times: list[float]) -> None:
    assert sampling.every(duration_s, interval_s) == times


@given(st.floats(0, 500), st.floats(0.1, 60))
def test_every_covers_the_clip(duration_s: float, interval_s: float) -> None:
    times = sampling.every(duration_s, interval_s)
    assert times[0] == 0
    assert all(b > a for a, b in zip(times, times[1:], strict=False))
    assert times[-1] < duration_s or times == [0]
    assert duration_s - times[-1] <= interval_s + 1e-9


@pytest.mark.parametrize("duration_s", [-1.0, math.nan, math.inf])
def test_every_refuses_a_duration_that_is_no_length(duration_s: float) -> None:
    with pytest.raises(ValueError, match="duration"):
        sampling.every(duration_s, 2.0)


@pytest.mark.parametrize("interval_s", [0.0, -2.0, math.nan, math.inf])
def test_every_refuses_a_bad_interval(interval_s: float) -> None:
    with pytest.raises(ValueError, match="interval"):
        sampling.every(10.0, interval_s)


def test_uniform_refuses_nothing_to_choose_from() -> None:
    with pytest.raises(ValueError):
        sampling.uniform_indices(0, 16)
