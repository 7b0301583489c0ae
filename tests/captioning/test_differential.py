from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.captioning.differential import (
    ATTEMPTS,
    Caption,
    Chain,
    ChainRules,
    Failure,
    Step,
)

REFERENCE = ChainRules()
TOLERANT = ChainRules(max_fallback_share=1.0)


def said(step: Step) -> Caption:
    return Caption(f"<{step.key}>", tokens=3)


def carry(chain: Chain, answers: dict[str, Caption | Failure] | None = None) -> list[Step]:
    """Carry the chain through; ``answers`` are those of steps that go wrong."""
    steps = []
    while (step := chain.next()) is not None:
        steps.append(step)
        chain.take(step, (answers or {}).get(step.key) or said(step))
    return steps


def test_reference_mode_is_a_chain_of_differences_and_a_summary() -> None:
    chain = Chain([0.0, 2.0, 6.5], REFERENCE)
    steps = carry(chain)
    assert [step.key for step in steps] == ["first-0-0", "difference-1-0", "difference-2-0", "summary-0"]
    assert [step.before for step in steps] == ["", "<first-0-0>", "<difference-1-0>", ""]
    notes = [(c.number, c.timestamp_s, c.caption) for c in steps[-1].captions]
    assert notes == [(1, 0.0, "<first-0-0>"), (2, 2.0, "<difference-1-0>"), (3, 6.5, "<difference-2-0>")]
    spans = [(d.kind, d.start_s, d.end_s, d.fallback) for d in chain.differentials]
    assert spans == [
        ("first", 0.0, 0.0, False),
        ("difference", 0.0, 2.0, False),
        ("difference", 2.0, 6.5, False),
    ]
    assert chain.summary == Caption("<summary-0>", 3)
    assert chain.rejection is None


def test_one_frame_is_enough() -> None:
    assert [step.kind for step in carry(Chain([3.0], REFERENCE))] == ["first", "summary"]


def test_fast_and_summary_are_asked_for_only_where_they_are_wanted() -> None:
    kinds = [step.kind for step in carry(Chain([0.0, 2.0], ChainRules(summary=False, fast=True)))]
    assert kinds == ["first", "difference", "fast"]
    only_fast = ChainRules(differential=False, summary=False, fast=True)
    assert [step.kind for step in carry(Chain([0.0, 2.0], only_fast))] == ["fast"]
    with pytest.raises(ValueError, match="summary needs"):
        ChainRules(differential=False)


def test_anchors_come_every_so_many_frames_or_seconds() -> None:
    by_frames = Chain([2.0 * n for n in range(7)], ChainRules(anchor_every_frames=3))
    assert [step.kind[0] for step in carry(by_frames)] == ["f", "d", "d", "a", "d", "d", "a", "s"]
    by_time = Chain([0.0, 2.0, 21.0, 23.0, 41.0], ChainRules(anchor_every_s=20.0))
    assert [step.kind[0] for step in carry(by_time)] == ["f", "d", "a", "d", "a", "s"]
    assert not any(d.fallback for d in by_time.differentials)
    assert by_time.differentials[2].start_s == 21.0


def test_a_caption_that_fails_its_checks_is_asked_for_once_more() -> None:
    chain = Chain([0.0, 2.0], REFERENCE)
    steps = carry(chain, {"difference-1-0": Caption("x x x", 3, ("repetition",))})
    assert [step.key for step in steps] == ["first-0-0", "difference-1-0", "difference-1-1", "summary-0"]
    assert steps[2].before == steps[1].before
    assert chain.differentials[1].text == "<difference-1-1>"
    assert not chain.differentials[1].fallback


@pytest.mark.parametrize("failing", [Caption("", 0, ("empty",)), Failure("HTTP 500")])
def test_where_a_difference_fails_an_anchor_stands_in_and_is_flagged(failing: Caption | Failure) -> None:
    chain = Chain([2.0 * n for n in range(6)], REFERENCE)
    steps = carry(chain, {"difference-2-0": failing, "difference-2-1": failing})
    assert [s.key for s in steps if s.frame == 2][-1] == "anchor-2-0"
    stand_in = chain.differentials[2]
    assert (stand_in.kind, stand_in.fallback, stand_in.start_s) == ("anchor", True, 4.0)
    assert [d.fallback for d in chain.differentials].count(True) == 1
    assert next(step for step in steps if step.key == "difference-3-0").before == "<anchor-2-0>"


def test_a_failing_anchor_is_kept_flagged_while_it_says_something() -> None:
    bad = Caption("x x", 2, ("truncated",))
    chain = Chain([0.0, 2.0], TOLERANT)
    carry(chain, {f"{kind}-{n}": bad for kind in ("difference-1", "anchor-1") for n in range(ATTEMPTS)})
    assert chain.differentials[1].text == "x x"
    assert chain.differentials[1].fallback


def test_a_frame_without_any_caption_costs_the_clip() -> None:
    chain = Chain([0.0, 2.0], TOLERANT)
    steps = carry(chain, {"difference-1-0": Failure("gone"), "anchor-1-0": Failure("gone for good")})
    assert chain.rejection is not None
    assert chain.rejection.sentence == "no caption for key frame 2: gone for good"
    assert steps[-1].key == "anchor-1-0"


def test_too_many_fallbacks_cost_the_clip_as_soon_as_they_do() -> None:
    chain = Chain([2.0 * n for n in range(10)], REFERENCE)
    steps = carry(chain, {f"difference-{n}-0": Failure("x") for n in (1, 2, 3, 4)})
    assert chain.rejection is not None
    assert (chain.rejection.measured, chain.rejection.bound) == (0.3, 0.2)
    assert steps[-1].key == "anchor-3-0"


def test_a_flagged_summary_is_kept_and_an_absent_one_costs_the_clip() -> None:
    cut = Caption("So it", 2, ("truncated",))
    flagged = Chain([0.0], REFERENCE)
    carry(flagged, {"summary-0": cut, "summary-1": cut})
    assert flagged.summary == cut
    for absent in (Failure("x"), Caption("", 0, ("empty",))):
        chain = Chain([0.0], REFERENCE)
        carry(chain, {"summary-0": absent, "summary-1": absent})
        assert chain.rejection is not None
        assert "no summary caption" in chain.rejection.sentence


def test_only_the_step_that_was_asked_for_is_taken() -> None:
    chain = Chain([0.0, 2.0], REFERENCE)
    step = chain.next()
    assert step is not None
    chain.take(step, said(step))
    with pytest.raises(ValueError, match="not the step"):
        chain.take(step, said(step))


@pytest.mark.parametrize("times", [[], [1.0, 1.0], [2.0, 1.0]])
def test_key_frames_are_in_order_of_time(times: list[float]) -> None:
    with pytest.raises(ValueError, match="order of time"):
        Chain(times, REFERENCE)


OUTCOMES = st.sampled_from(
    [Caption("fine", 1), Caption("bad bad", 2, ("repetition",)), Caption("", 0, ("empty",)), Failure("gone")]
)
RULES = st.builds(
    ChainRules,
    anchor_every_frames=st.none() | st.integers(1, 5),
    anchor_every_s=st.none() | st.floats(1, 30),
    max_fallback_share=st.floats(0, 1),
    fast=st.booleans(),
)


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=25, unique=True),
    RULES,
    st.lists(OUTCOMES, max_size=80),
)
def test_every_chain_ends_captioned_or_rejected(
    times: list[int], rules: ChainRules, outcomes: list[Caption | Failure]
) -> None:
    times_s = sorted(t / 4 for t in times)
    chain, waiting, keys = Chain(times_s, rules), iter(outcomes), []
    while (step := chain.next()) is not None:
        keys.append(step.key)
        left = chain.steps_left
        chain.take(step, next(waiting, Caption("fine", 1)))
        assert chain.steps_left <= left
    assert len(set(keys)) == len(keys)  # an answer is found again by its key
    assert len(keys) <= 2 * ATTEMPTS * len(times_s) + 2 * ATTEMPTS
    assert chain.steps_left == 0
    if chain.rejection is None:
        assert [d.frame for d in chain.differentials] == list(range(len(times_s)))
        assert all(d.text for d in chain.differentials)
        assert all(math.isclose(d.end_s, t) for d, t in zip(chain.differentials, times_s, strict=True))
        assert chain.summary is not None
        assert (chain.fast is not None) is rules.fast
        flagged = sum(d.fallback for d in chain.differentials)
        assert flagged <= rules.max_fallback_share * len(times_s)
        since = 0
        for frame, differential in enumerate(chain.differentials):
            since = 0 if differential.kind != "difference" else since + 1
            assert since < (rules.anchor_every_frames or math.inf)
            assert (differential.kind == "first") is (frame == 0)
