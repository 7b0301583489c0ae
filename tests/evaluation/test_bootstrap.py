"""Bootstrap intervals: reproducible, ordered, honest in coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share4video.evaluation.bootstrap import mean_interval, paired_difference, sum_interval

scores = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)


@given(scores, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_the_estimate_is_the_mean_and_the_bounds_stay_within_the_values(
    values: list[float], seed: int
) -> None:
    interval = mean_interval(values, samples=200, seed=seed)
    assert interval.estimate == pytest.approx(np.mean(values))
    assert min(values) <= interval.low <= interval.high <= max(values)


@given(scores)
@settings(max_examples=40, deadline=None)
def test_a_model_does_not_differ_from_itself(values: list[float]) -> None:
    interval = paired_difference(values, values, samples=100)
    assert (interval.estimate, interval.low, interval.high) == (0.0, 0.0, 0.0)


@given(scores)
@settings(max_examples=40, deadline=None)
def test_swapping_the_models_mirrors_the_interval(values: list[float]) -> None:
    other = [1.0 - value if i % 3 else value for i, value in enumerate(values)]
    forth = paired_difference(values, other, samples=201, seed=3)
    back = paired_difference(other, values, samples=201, seed=3)
    assert forth.estimate == pytest.approx(-back.estimate)
    assert forth.low == pytest.approx(-back.high)
    assert forth.high == pytest.approx(-back.low)


def test_equal_seeds_give_equal_intervals_and_other_seeds_do_not() -> None:
    values = np.random.default_rng(1).random(300)
    assert mean_interval(values, seed=4) == mean_interval(values, seed=4)
    assert mean_interval(values, seed=4) != mean_interval(values, seed=5)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random(50)
    whole = mean_interval(values, samples=500)
    monkeypatch.setattr("share4video.evaluation.bootstrap._CHUNK_BYTES", 8 * 50 * 7)
    assert mean_interval(values, samples=500) == whole


def test_pairing_removes_the_difficulty_of_the_items() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.random(400) < 0.5
    better = difficulty | (rng.random(400) < 0.1)
    paired = paired_difference(better, difficulty)
    assert paired.low > 0
    alone = mean_interval(better)
    assert alone.high - alone.low > 1.2 * (paired.high - paired.low)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        interval = mean_interval(rng.random(120) < 0.7, samples=400, seed=trial)
        covered += interval.low <= 0.7 <= interval.high
    assert 0.90 <= covered / 200 <= 0.99


def test_clusters_are_drawn_whole() -> None:
    rng = np.random.default_rng(4)
    per_clip = rng.random(40) < 0.6
    clips = np.repeat([f"clip-{i:02d}" for i in range(40)], 6)
    assert mean_interval(np.repeat(per_clip, 6), clusters=clips) == mean_interval(per_clip)
    uneven = mean_interval([1.0, 1.0, 1.0, 0.0], clusters=["a", "a", "a", "b"], samples=100)
    assert (uneven.estimate, uneven.low, uneven.high) == (0.75, 0.0, 1.0)


def test_only_clusters_keep_the_promise_where_a_clip_decides_several_answers() -> None:
    """Two equally good models: each clip favours one of them, in all questions about it."""
    rng = np.random.default_rng(11)
    clips, questions, trials = 60, 5, 200
    names = np.repeat(np.arange(clips), questions)
    holds_zero = {"clips": 0, "questions": 0}
    for trial in range(trials):
        favour = np.repeat(rng.choice([-0.4, 0.4], clips), questions)
        candidate = rng.random(clips * questions) < 0.5 + favour
        reference = rng.random(clips * questions) < 0.5 - favour
        for kind, clusters in (("clips", names), ("questions", None)):
            found = paired_difference(candidate, reference, clusters=clusters, samples=400, seed=trial)
            holds_zero[kind] += found.low <= 0 <= found.high
    assert 0.90 <= holds_zero["clips"] / trials <= 0.99
    assert holds_zero["questions"] / trials <= 0.80


def test_a_statistic_of_sums_sees_the_true_sums() -> None:
    rows = np.array([[1.0, 2.0], [3.0, 4.0]])
    interval = sum_interval(rows, lambda sums: sums[:, 0] / sums[:, 1], samples=100)
    assert interval.estimate == pytest.approx(4 / 6)
    assert interval.low == pytest.approx(1 / 2)
    assert interval.high == pytest.approx(3 / 4)


@pytest.mark.parametrize(("samples", "confidence"), [(0, 0.95), (10, 0.0), (10, 1.0)])
def test_settings_out_of_range_are_refused(samples: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="samples"):
        mean_interval([1.0], samples=samples, confidence=confidence)


def test_nothing_has_no_interval_and_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="rows"):
        mean_interval([])
    with pytest.raises(ValueError, match="one shape"):
        paired_difference([1.0, 0.0], [1.0])
    with pytest.raises(ValueError, match="its cluster"):
        mean_interval([1.0, 0.0], clusters=["a"])
