from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share4video.curation import candidates
from share4video.curation.candidates import PairBudget, every_pair, partitioned_pairs, sampled_recall
from share4video.curation.floors import affordable_floor
from share4video.errors import UserError

PLENTY = 10_000
Array = np.ndarray[tuple[int, int], np.dtype[np.float32]]


def grouped(seed: int, rows: int, width: int = 24, shared: float = 0.8) -> Array:
    """Unit vectors with a shared mean: groups of near ones, and the rest unrelated."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(rows, width))
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    group = rng.integers(max(1, rows // 3), size=rows)
    centres = own[rng.integers(rows, size=rows)][group]
    own = np.where(rng.random((rows, 1)) < 0.6, centres + 0.3 * own, own)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    mean = np.zeros(width)
    mean[0] = np.sqrt(shared)
    mixed = mean + np.sqrt(1 - shared) * own
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def by_definition(rows: Array, floor: float) -> set[tuple[int, int]]:
    one, two = np.nonzero(np.triu(rows @ rows.T >= floor, k=1))
    return set(zip(one.tolist(), two.tolist(), strict=True))


def as_set(pairs: candidates.Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs[0].tolist(), pairs[1].tolist(), strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 90), st.floats(0.5, 0.99))
def test_every_pair_is_every_pair(seed: int, rows: int, floor: float) -> None:
    vectors = grouped(seed, rows) if rows else np.empty((0, 24), np.float32)
    exact = rows and np.abs(vectors @ vectors.T - floor).min() > 1e-5  # else rounding decides
    pairs = every_pair(vectors, floor, PairBudget(floor, rows, PLENTY))
    if exact:
        assert as_set(pairs) == by_definition(vectors, floor)
    assert np.array_equal(np.lexsort((pairs[1], pairs[0])), np.arange(len(pairs[0])))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3000))
def test_a_partitioned_search_finds_no_pair_that_is_not_one_and_each_once(seed: int, rows: int) -> None:
    vectors = grouped(seed, rows)
    found = partitioned_pairs(vectors, 0.95, PairBudget(0.95, rows, PLENTY))
    assert len(as_set(found)) == len(found[0])
    assert as_set(found) <= by_definition(vectors, 0.95 - 1e-5)
    assert np.array_equal(np.lexsort((found[1], found[0])), np.arange(len(found[0])))


def test_a_partitioned_search_finds_nearly_all_and_says_how_many() -> None:
    rows = grouped(1, 12_000, width=96)
    floor = 0.96
    exact = as_set(every_pair(rows, floor, PairBudget(floor, len(rows), PLENTY)))
    found = partitioned_pairs(rows, floor, PairBudget(floor, len(rows), PLENTY))
    recall = len(as_set(found) & exact) / len(exact)
    assert len(exact) > 1000 and recall > 0.99
    measured = sampled_recall(rows, floor, found, sample=len(rows))
    assert measured == pytest.approx(recall, abs=1e-3)


def test_recall_counts_what_is_missing() -> None:
    rows = grouped(2, 500)
    all_pairs = every_pair(rows, 0.95, PairBudget(0.95, 500, PLENTY))
    half = (all_pairs[0][::2], all_pairs[1][::2])
    assert sampled_recall(rows, 0.95, all_pairs, 500) == 1.0
    assert sampled_recall(rows, 0.95, half, 500) == pytest.approx(0.5, abs=0.02)
    nothing = (np.empty(0, np.int64), np.empty(0, np.int64))
    assert sampled_recall(rows, 0.95, nothing, 500) == 0.0
    assert sampled_recall(np.eye(8, dtype=np.float32), 0.5, nothing) is None


@pytest.mark.parametrize("search", [every_pair, partitioned_pairs])
def test_a_search_that_finds_too_much_is_given_up(search: object) -> None:
    rows = np.ones((400, 4), np.float32) / 2
    assert callable(search)
    with pytest.raises(UserError, match="near pairs per clip"):
        search(rows, 0.9, PairBudget(0.9, len(rows), 20))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 300), st.floats(0.1, 40))
def test_the_floor_is_the_lowest_one_the_budget_allows(seed: int, rows: int, budget: float) -> None:
    vectors = grouped(seed, rows)
    floor = affordable_floor(vectors, budget, lowest=0.5, highest=0.99)
    similar = (vectors @ vectors.T)[np.triu_indices(rows, k=1)]  # the sample is everything here

    def pairs_per_row(of: float) -> float:
        return float((similar >= of).sum()) / rows

    if floor < 0.99:
        assert pairs_per_row(floor + 1e-6) <= budget
    if floor > 0.5:
        assert pairs_per_row(floor - 0.01 - 1e-6) > budget


def test_a_floor_for_nothing() -> None:
    assert affordable_floor(np.empty((0, 3), np.float32), 5, lowest=0.5, highest=0.9) == 0.5
