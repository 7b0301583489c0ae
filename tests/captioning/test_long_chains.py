"""Chains of long clips: cuts, windows, parts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from share4video.captioning.differential import (
    Caption,
    Chain,
    ChainRules,
    Failure,
)
from share4video.captioning.steps import without_digest
from tests.captioning.chains import REFERENCE, TOLERANT, asked, carry


def test_a_scene_cut_is_an_anchor() -> None:
    chain = Chain([0.0, 2.0, 4.0, 6.0], REFERENCE, cuts=[False, False, True, False])
    assert [step.kind[0] for step in carry(chain)] == ["f", "d", "a", "d", "s"]
    assert not chain.differentials[2].fallback


def test_windows_share_a_frame_and_stop_before_an_anchor() -> None:
    chain = Chain([2.0 * n for n in range(10)], ChainRules(window=4, anchor_every_frames=6))
    steps = carry(chain)
    assert asked(steps) == [
        "first-0-0",
        "window-0-3-0",
        "window-3-5-0",
        "anchor-6-0",
        "window-6-9-0",
        "summary-0",
    ]
    assert [(step.since, step.before) for step in steps if step.kind == "window"] == [
        (0, "<first-0-0>"),
        (3, "<window-0-3-0>"),
        (6, "<anchor-6-0>"),
    ]
    assert [(d.start_s, d.end_s) for d in chain.differentials] == [
        (0.0, 0.0),
        (0.0, 6.0),
        (6.0, 10.0),
        (12.0, 12.0),
        (12.0, 18.0),
    ]
    assert [(c.start_s, c.timestamp_s) for c in steps[-1].captions][1] == (0.0, 6.0)
    with pytest.raises(ValueError, match="two frames or more"):
        ChainRules(window=1)


def test_a_window_of_two_frames_is_a_difference() -> None:
    steps = carry(Chain([0.0, 2.0, 4.0, 6.0], ChainRules(window=3)))
    assert asked(steps) == [
        "first-0-0",
        "window-0-2-0",
        "difference-3-0",
        "summary-0",
    ]


def test_where_a_window_fails_an_anchor_stands_in_for_its_first_frame_and_the_next_begins_there() -> None:
    chain = Chain([2.0 * n for n in range(5)], replace(TOLERANT, window=4))
    steps = carry(chain, {"window-0-3-0": Failure("HTTP 500")})
    assert asked(steps)[1:4] == ["window-0-3-0", "anchor-1-0", "window-1-4-0"]
    assert [(d.frame, d.fallback) for d in chain.differentials] == [(0, False), (1, True), (4, False)]


@pytest.mark.parametrize("window", [2, 4])
def test_without_memory_no_caption_goes_into_the_next(window: int) -> None:
    rules = ChainRules(memory=False, window=window)
    assert all(step.before == "" for step in carry(Chain([0.0, 2.0, 4.0, 6.0], rules)))


def test_a_long_clip_is_summed_up_in_parts() -> None:
    rules = ChainRules(anchor_every_frames=4, summary_budget_tokens=1024)
    chain = Chain([2.0 * n for n in range(12)], rules)
    steps = carry(chain)
    assert asked([step for step in steps if step.captions]) == [
        "part-1-0-0",
        "part-1-1-0",
        "part-1-2-0",
        "summary-0",
    ]
    assert steps.index(next(step for step in steps if step.part)) < 9  # as soon as no more fit
    spans = [(0.0, 6.0, "<part-1-0-0>"), (8.0, 14.0, "<part-1-1-0>"), (16.0, 22.0, "<part-1-2-0>")]
    assert [(p.start_s, p.end_s, p.caption.text) for p in chain.parts] == spans
    assert [(c.start_s, c.timestamp_s, c.caption) for c in steps[-1].captions] == spans


def test_a_part_without_a_summary_costs_the_clip() -> None:
    rules = ChainRules(summary_budget_tokens=1024)
    chain = Chain([2.0 * n for n in range(12)], rules)
    carry(chain, {"part-1-0-0": Failure("gone")})
    assert chain.rejection is not None
    assert chain.rejection.sentence == "no part caption: gone"


def test_what_is_asked_about_other_captions_is_another_call() -> None:
    """A difference that had failed for good is answered in the next run: what came after it is asked anew."""

    def keys(answers: dict[str, Caption | Failure]) -> dict[str, str]:
        chain = Chain([0.0, 2.0, 4.0, 6.0], ChainRules(max_fallback_share=1.0))
        return {without_digest(step.key): step.key for step in carry(chain, answers)}

    failed, calm = keys({"difference-1-0": Failure("HTTP 500")}), keys({})
    assert keys({}) == calm
    assert failed["first-0-0"] == calm["first-0-0"] == "first-0-0"
    assert failed["difference-1-0"] == calm["difference-1-0"]
    assert failed["difference-2-0"] != calm["difference-2-0"]
    assert failed["difference-3-0"] == calm["difference-3-0"]  # of difference 2, which said the same
    assert failed["summary-0"] != calm["summary-0"]
    assert without_digest("window-0-3-1") == "window-0-3-1"
