"""How the work of a scan is divided, and what its parts are called; `test_probe_parts` runs them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from share4video.stages.scan import ScanShard, contiguous

WEIGHTS = st.lists(st.integers(1, 10**10), min_size=1, max_size=60)


@given(WEIGHTS, st.integers(1, 20))
@example([1, 1, 1, 100], 2)
@example([100, 1, 1, 1], 3)
def test_a_division_holds_everything_once_in_order(weights: list[int], parts: int) -> None:
    runs = contiguous(weights, parts)
    assert [number for first, end in runs for number in range(first, end)] == list(range(len(weights)))
    assert all(first < end for first, end in runs)
    assert len(runs) <= parts
    heaviest = max(sum(weights[first:end]) for first, end in runs)
    assert heaviest <= sum(weights) / parts + 2 * max(weights)


def test_equal_weights_are_divided_equally() -> None:
    assert contiguous([5] * 12, 4) == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert contiguous([5] * 2, 4) == [(0, 1), (1, 2)]
    assert contiguous([1, 1, 1, 9], 2) == [(0, 3), (3, 4)]


def test_a_shard_is_a_parameter_and_back() -> None:
    shard = ScanShard(2, 10, 14, "a" * 64, "b" * 64)
    assert ScanShard.parse(str(shard)) == shard
    with pytest.raises(ValueError):
        ScanShard.parse("2")
