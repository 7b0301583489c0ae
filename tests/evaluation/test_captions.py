"""Caption scoring: one-to-one matching within a tolerance, and the scores made of it."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share4video.evaluation.captions import (
    ClipFacts,
    Counts,
    blind_prior,
    count_facts,
    score_captions,
)
from share4video.synthetic.language import Fact

facts = st.lists(
    st.builds(
        Fact,
        object=st.sampled_from(["red circle", "blue square"]),
        predicate=st.sampled_from(["moves", "appears"]),
        value=st.sampled_from(["", "left"]),
        time_s=st.sampled_from([0.0, 1.5, 2.0, 3.5, 4.0, 8.0]),
    ),
    max_size=6,
)


def moves(*times_s: float, name: str = "red circle", way: str = "left") -> tuple[Fact, ...]:
    return tuple(Fact(name, "moves", way, time_s) for time_s in times_s)


@given(facts, facts, facts)
@settings(max_examples=200, deadline=None)
def test_every_fact_is_answered_for_once(
    predicted: list[Fact], observable: list[Fact], unobservable: list[Fact]
) -> None:
    counts = count_facts(predicted, observable, unobservable)
    assert counts.right + counts.wrong + counts.ignored == len(predicted)
    assert counts.right + counts.missed == len(observable)
    assert counts.ignored <= len(unobservable)
    assert min(counts.right, counts.wrong, counts.missed, counts.ignored) >= 0


@given(facts, facts, facts, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_counts_do_not_depend_on_order(
    predicted: list[Fact], observable: list[Fact], unobservable: list[Fact], shuffler: object
) -> None:
    before = count_facts(predicted, observable, unobservable)
    for part in (predicted, observable, unobservable):
        shuffler.shuffle(part)  # type: ignore[attr-defined]
    assert count_facts(predicted, observable, unobservable) == before


@given(facts, facts)
@settings(max_examples=100, deadline=None)
def test_swapping_prediction_and_truth_swaps_wrong_and_missed(left: list[Fact], right: list[Fact]) -> None:
    forth, back = count_facts(left, right), count_facts(right, left)
    assert (forth.right, forth.wrong, forth.missed) == (back.right, back.missed, back.wrong)


@given(facts, facts)
@settings(max_examples=100, deadline=None)
def test_the_matching_is_as_large_as_the_best_of_all(predicted: list[Fact], observable: list[Fact]) -> None:
    def fits(one: Fact, other: Fact) -> bool:
        same = (one.object, one.predicate, one.value) == (other.object, other.predicate, other.value)
        return same and abs(one.time_s - other.time_s) <= 2.0

    short, long = sorted((predicted, observable), key=len)
    best = max(
        sum(fits(one, other) for one, other in zip(short, chosen, strict=False))
        for chosen in permutations(long, len(short))
    )
    assert count_facts(predicted, observable).right == best


def test_saying_a_thing_twice_is_one_right_and_one_wrong() -> None:
    assert count_facts(moves(4.0, 4.0), moves(4.0)) == Counts(right=1, wrong=1)


def test_a_greedy_choice_does_not_block_a_better_matching() -> None:
    # 4 s could take either; 2 s only the first.
    assert count_facts(moves(4.0, 2.0), moves(3.0, 6.0)) == Counts(right=2)


def test_the_tolerance_is_one_sampling_interval_and_includes_its_end() -> None:
    assert count_facts(moves(6.1), moves(4.1)).right == 1
    assert count_facts(moves(6.2), moves(4.1)).right == 0
    assert count_facts(moves(4.0), moves(4.0), tolerance_s=0.0).right == 1
    with pytest.raises(ValueError, match="negative"):
        count_facts([], [], tolerance_s=-1.0)


def test_object_and_value_bind_a_fact() -> None:
    assert count_facts(moves(4.0, way="right"), moves(4.0, way="left")) == Counts(wrong=1, missed=1)
    assert count_facts(moves(4.0, name="blue square"), moves(4.0)) == Counts(wrong=1, missed=1)


def test_what_sampling_cannot_show_is_neither_rewarded_nor_punished() -> None:
    assert count_facts(moves(4.0), (), moves(4.0)) == Counts(ignored=1)
    assert count_facts((), (), moves(4.0)) == Counts()
    # An observable fact comes first, whichever of the two is nearer.
    assert count_facts(moves(4.0), moves(5.5), moves(4.0)) == Counts(right=1)
    # Of two predictions the one only the unobservable fact can take is left to it.
    assert count_facts(moves(4.0, 1.0), moves(5.5), moves(2.0)) == Counts(right=1, ignored=1)


def test_scores_are_micro_averages_over_clips() -> None:
    clips = [
        ClipFacts("a", predicted=moves(2.0, 4.0), observable=moves(2.0)),
        ClipFacts("b", predicted=(), observable=moves(2.0, 8.0)),
        ClipFacts("c", predicted=moves(2.0), observable=moves(2.0)),
    ]
    score = score_captions(clips)
    assert (score.clips, score.right, score.wrong, score.missed) == (3, 2, 1, 2)
    assert score.precision == pytest.approx(2 / 3)
    assert score.recall == pytest.approx(2 / 4)
    assert score.f1.estimate == pytest.approx(4 / 7)
    assert score.f1.low <= score.f1.estimate <= score.f1.high
    assert score_captions(clips) == score


def test_nothing_said_of_nothing_is_right() -> None:
    score = score_captions([ClipFacts("a", predicted=(), observable=())])
    assert (score.precision, score.recall, score.f1.estimate) == (1.0, 1.0, 1.0)


def test_a_blind_prior_knows_the_kind_of_clip_and_not_the_clip() -> None:
    ways = ("left", "right", "up", "down")
    clips = [
        ClipFacts(str(i), predicted=moves(4.0, way=ways[i % 4]), observable=moves(4.0, way=ways[i % 4]))
        for i in range(40)
    ]
    assert score_captions(clips).f1.estimate == 1.0
    blind = blind_prior(clips)
    assert 0.1 < blind.f1.estimate < 0.4
    assert blind == blind_prior(clips)
    assert blind.clips == 40
    with pytest.raises(ValueError, match="two clips"):
        blind_prior(clips[:1])
