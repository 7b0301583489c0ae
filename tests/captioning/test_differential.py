from __future__ import annotations

import math
import pickle
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.captioning.differential import (
    ATTEMPTS,
    Caption,
    Chain,
    ChainRules,
    Differential,
    Failure,
    PartSummary,
    Step,
)
from share4video.captioning.steps import without_digest
from tests.captioning.chains import REFERENCE, TOLERANT, asked, carry, said


def test_reference_mode_is_a_chain_of_differences_and_a_summary() -> None:
    chain = Chain([0.0, 2.0, 6.5], REFERENCE)
    steps = carry(chain)
    assert asked(steps) == [
        "first-0-0",
        "difference-1-0",
        "difference-2-0",
        "summary-0",
    ]
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
    assert asked(steps) == [
        "first-0-0",
        "difference-1-0",
        "difference-1-1",
        "summary-0",
    ]
    assert steps[2].before == steps[1].before
    assert chain.differentials[1].text == "<difference-1-1>"
    assert not chain.differentials[1].fallback


@pytest.mark.parametrize("failing", [Caption("", 0, ("empty",)), Failure("HTTP 500")])
def test_where_a_difference_fails_an_anchor_stands_in_and_is_flagged(failing: Caption | Failure) -> None:
    chain = Chain([2.0 * n for n in range(6)], REFERENCE)
    steps = carry(chain, {"difference-2-0": failing, "difference-2-1": failing})
    assert [without_digest(s.key) for s in steps if s.frame == 2][-1] == "anchor-2-0"
    stand_in = chain.differentials[2]
    assert (stand_in.kind, stand_in.fallback, stand_in.start_s) == ("anchor", True, 4.0)
    assert [d.fallback for d in chain.differentials].count(True) == 1
    assert steps[asked(steps).index("difference-3-0")].before == "<anchor-2-0>"


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
    assert without_digest(steps[-1].key) == "anchor-1-0"


def test_too_many_fallbacks_cost_the_clip_as_soon_as_they_do() -> None:
    chain = Chain([2.0 * n for n in range(10)], REFERENCE)
    steps = carry(chain, {f"difference-{n}-0": Failure("x") for n in (1, 2, 3, 4)})
    assert chain.rejection is not None
    assert (chain.rejection.measured, chain.rejection.bound) == (0.3, 0.2)
    assert without_digest(steps[-1].key) == "anchor-3-0"


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


@pytest.mark.parametrize("times", [[1.0, 1.0], [2.0, 1.0]])
def test_key_frames_are_in_order_of_time(times: list[float]) -> None:
    with pytest.raises(ValueError, match="order of time"):
        Chain(times, REFERENCE)


def test_a_clip_has_a_key_frame() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Chain([], REFERENCE)
    with pytest.raises(ValueError, match="at least one"):
        Chain.growing(REFERENCE).close()


OUTCOMES = st.sampled_from(
    [Caption("fine", 1), Caption("bad bad", 2, ("repetition",)), Caption("", 0, ("empty",)), Failure("gone")]
)
RULES = st.builds(
    ChainRules,
    anchor_every_frames=st.none() | st.integers(1, 5),
    anchor_every_s=st.none() | st.floats(1, 30),
    max_fallback_share=st.floats(0, 1),
    fast=st.booleans(),
    window=st.integers(2, 8),
    memory=st.booleans(),
    summary_budget_tokens=st.none() | st.integers(1024, 1400),
    part_every_anchor=st.booleans(),
)
FRAMES = st.lists(
    st.tuples(st.integers(0, 1000), st.sampled_from([False, False, True])),
    min_size=1,
    max_size=40,
    unique_by=lambda frame: frame[0],
)


def in_order(frames: list[tuple[int, bool]]) -> tuple[list[float], list[bool]]:
    ordered = sorted(frames)
    return [time / 4 for time, _ in ordered], [cut for _, cut in ordered]


@given(FRAMES, RULES, st.lists(OUTCOMES, max_size=80))
def test_every_chain_ends_captioned_or_rejected(
    frames: list[tuple[int, bool]], rules: ChainRules, outcomes: list[Caption | Failure]
) -> None:
    times_s, cuts = in_order(frames)
    chain, waiting, keys = Chain(times_s, rules, cuts=cuts), iter(outcomes), []
    while (step := chain.next()) is not None:
        keys.append(step.key)
        assert chain.steps_left > 0
        chain.take(step, next(waiting, Caption("fine", 1)))
    assert len(set(keys)) == len(keys)  # an answer is found again by its key
    asked_of_frames = [key for key in keys if not key.startswith(("part", "summary", "fast"))]
    assert len(asked_of_frames) <= 2 * ATTEMPTS * len(times_s)
    assert chain.steps_left == 0
    if chain.rejection is not None:
        return
    assert all(d.text for d in chain.differentials)
    assert chain.summary is not None
    assert (chain.fast is not None) is rules.fast
    flagged = sum(d.fallback for d in chain.differentials)
    assert flagged <= rules.max_fallback_share * len(times_s)
    full = told = -1
    for caption in chain.differentials:
        assert (caption.kind == "first") is (told < 0)
        new = range(told + 1, caption.frame + 1)  # every key frame is answered for once, in order
        assert len(new) == 1 or (caption.kind == "window" and 1 < len(new) < rules.window)
        assert caption.end_s == times_s[caption.frame]
        is_full = caption.kind in ("first", "anchor")
        assert caption.start_s == (caption.end_s if is_full else times_s[told])
        for frame in new:
            due = full < 0 or (
                cuts[frame]
                or frame - full >= (rules.anchor_every_frames or math.inf)
                or times_s[frame] - times_s[full] >= (rules.anchor_every_s or math.inf)
            )
            assert is_full if due else not is_full or caption.fallback
        full, told = (caption.frame if is_full else full), caption.frame
    assert told == len(times_s) - 1
    for part in chain.parts:
        assert times_s[0] <= part.start_s <= part.end_s <= times_s[-1]


@given(FRAMES, RULES, st.lists(OUTCOMES, max_size=80), st.randoms())
def test_a_clip_that_grows_is_captioned_as_one_that_is_known(
    frames: list[tuple[int, bool]], rules: ChainRules, outcomes: list[Caption | Failure], chance: Random
) -> None:
    rules = replace(rules, differential=True, fast=False, summary=True, max_fallback_share=1.0)
    times_s, cuts = in_order(frames)
    known, answers, steps = Chain(times_s, rules, cuts=cuts), iter(outcomes), []
    while (step := known.next()) is not None:
        steps.append((step, next(answers, said(step))))
        known.take(*steps[-1])

    growing, coming = Chain.growing(rules), iter(zip(times_s, cuts, strict=True))
    told: list[Step] = []
    handed_out: list[Differential | PartSummary] = []
    while growing.rejection is None and (growing.next() is not None or not growing.closed):
        asked = growing.next()
        if asked is None or (not growing.closed and chance.random() < 0.5):
            frame = next(coming, None)
            if frame is None:
                growing.close()
            else:
                growing.extend(*frame)
        else:
            told.append(asked)
            assert asked == steps[len(told) - 1][0]
            growing.take(asked, steps[len(told) - 1][1])
            handed_out += growing.hand_out()
            assert not growing.differentials
            assert not growing.parts
    assert told == [step for step, _ in steps]
    assert growing.rejection == known.rejection
    assert growing.summary == known.summary
    assert [c for c in handed_out if isinstance(c, Differential)] == known.differentials
    assert [c for c in handed_out if isinstance(c, PartSummary)] == known.parts


def test_fallbacks_of_a_clip_that_grows_are_judged_when_their_share_is_known() -> None:
    chain = Chain.growing(REFERENCE)
    for number in range(4):
        chain.extend(2.0 * number)
    carry(chain, {"difference-1-0": Failure("gone")})
    assert chain.rejection is None
    chain.close()
    assert chain.rejection is not None
    assert (chain.rejection.measured, chain.next()) == (0.25, None)


def test_a_clip_grows_until_it_is_closed() -> None:
    chain = Chain.growing(REFERENCE)
    assert chain.next() is None
    chain.extend(0.0)
    with pytest.raises(ValueError, match="order of time"):
        chain.extend(0.0)
    chain.close()
    with pytest.raises(ValueError, match="no more"):
        chain.extend(2.0)
    with pytest.raises(ValueError, match="all key frames at once"):
        Chain.growing(ChainRules(fast=True))


def test_what_a_growing_clip_holds_does_not_grow_with_it() -> None:
    def held_after(frames: int) -> int:
        chain = Chain.growing(ChainRules(anchor_every_frames=8, summary_budget_tokens=2048))
        for number in range(frames):
            chain.extend(2.0 * number)
            while (step := chain.next()) is not None:
                chain.take(step, Caption("A dog runs. " * 20, 80))
                chain.hand_out()
        return len(pickle.dumps(chain.__dict__))

    assert held_after(2000) < 2 * held_after(100)
