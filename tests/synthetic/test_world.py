from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from share4video.synthetic import language
from share4video.synthetic.known_facts import all_facts, interval_changes, sampled_times
from share4video.synthetic.truth import truth
from share4video.synthetic.twins import changed_clip, reordered_clip, reversed_clip
from share4video.synthetic.world import (
    HELD_OUT,
    HELD_OUT_DURATION_S,
    MIN_STATE_S,
    Clip,
    clear_of_each_other,
    moving_combinations,
    sample_clip,
)

seeds = st.integers(0, 1 << 20)
quick = settings(max_examples=30, deadline=None)


def _visible(clip: Clip, time_s: float) -> list[tuple[str, str, float, float]]:
    return [(b.name, b.size, round(b.x, 6), round(b.y, 6)) for b in clip.state_at(time_s).bodies]


@quick
@given(seeds)
def test_objects_stay_inside_and_apart(seed: int) -> None:
    clip = sample_clip(seed)
    assert clear_of_each_other(clip, [float(t) for t in np.arange(0, clip.duration_s, 0.2)])


@quick
@given(seeds)
def test_states_last_long_enough_to_be_sampled(seed: int) -> None:
    clip = sample_clip(seed)
    assert all(motion.end_s - motion.start_s >= MIN_STATE_S - 1e-9 for motion in clip.motions)
    starts = sorted({event.start_s for event in clip.events if event.kind != "blinks"})
    assert all(b - a >= MIN_STATE_S - 1e-9 for a, b in zip(starts, starts[1:], strict=False))


@quick
@given(seeds)
def test_splits_hold_out_what_they_say(seed: int) -> None:
    train, combination = sample_clip(seed), sample_clip(seed, "combination")
    low, high = HELD_OUT_DURATION_S
    assert not moving_combinations(train) & HELD_OUT
    assert not low <= train.duration_s <= high
    assert moving_combinations(combination) & HELD_OUT
    assert low <= sample_clip(seed, "duration").duration_s <= high


def test_the_same_seed_gives_the_same_clip() -> None:
    assert sample_clip(5) == sample_clip(5) != sample_clip(6)


@quick
@given(seeds)
def test_a_reversed_clip_shows_the_same_backwards(seed: int) -> None:
    clip = sample_clip(seed)
    twin = reversed_clip(clip)
    for share in np.linspace(0.013, 0.987, 17):
        time_s = float(share) * clip.duration_s
        assert _visible(clip, time_s) == _visible(twin, clip.duration_s - time_s)
        assert clip.state_at(time_s).background == twin.state_at(clip.duration_s - time_s).background


def test_twins_differ_in_time_but_not_in_cast() -> None:
    made = 0
    for seed in range(30):
        clip = sample_clip(seed)
        for twin in (reordered_clip(clip, seed), changed_clip(clip, seed)):
            if twin is not None:
                made += 1
                assert twin.bodies == clip.bodies
                assert (twin.motions, twin.events) != (clip.motions, clip.events)
    assert made >= 30


@quick
@given(seeds, st.integers(0, 100))
def test_captions_say_the_facts_and_nothing_else(seed: int, wording: int) -> None:
    clip = sample_clip(seed)
    rng = np.random.default_rng(wording)
    times = sampled_times(clip)
    first = language.first_caption(clip.state_at(0.0), rng)
    later = [language.differential_caption(c, rng) for c in language.clip_changes(clip, times)]
    summary = language.summary_caption(list(zip(times, [first, *later], strict=True)))
    assert language.parse_summary(summary) == [fact for fact, _ in all_facts(clip)]
    fast = language.fast_caption(list(enumerate([first, *later])))
    assert language.parse_fast(fast, times) == [fact for fact, _ in all_facts(clip)]


@given(st.text(max_size=300))
def test_any_text_is_read_without_failing(text: str) -> None:
    language.parse(text, 1.0)
    language.parse_summary(text)
    language.parse_fast(text, [0.0, 2.0])


def test_a_movement_along_both_axes_is_not_called_observable() -> None:
    directions = [change for seed in range(200) for change in interval_changes(sample_clip(seed))]
    unsure = [change for change in directions if not change.observable]
    assert unsure
    assert {change.fact.predicate for change in unsure} <= {"moves", "pans"}


def test_truth_holds_paraphrases_and_observability() -> None:
    told = truth(sample_clip(3))
    assert len({captions["summary"] for captions in told["captions"]}) > 1
    assert len({captions["brief"] for captions in told["captions"]}) > 1
    assert {"observable", "short", "object", "predicate", "value", "time_s"} == set(told["facts"][0])
