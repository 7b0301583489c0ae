from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from share4video.stages.division import divide


@given(st.lists(st.floats(0, 1e9), max_size=40), st.integers(1, 12))
@example([0.0, 0.0], 2)
def test_division_is_whole_and_even(weights: list[float], shards: int) -> None:
    groups = divide(weights, shards)
    assert sorted(thing for group in groups for thing in group) == list(range(len(weights)))
    assert len(groups) == max(1, min(shards, len(weights)))
    assert all(group for group in groups) or not weights
    loads = [sum(weights[thing] for thing in group) for group in groups]
    assert max(loads) <= sum(weights) / len(groups) + max(weights, default=0) * 1.000001
