"""The fact funnel: matching, what each stage loses, and that it only ever loses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share4video.evaluation.captions import count_facts
from share4video.report.funnel import fact_funnel, facts_left, say, told, without
from share4video.report.run_tables import RunTables
from share4video.store import LocalStore
from share4video.synthetic.language import Fact
from share4video.synthetic.truth import write_truth
from share4video.synthetic.world import Body, Clip, Event, Motion
from tests.report.material import Run, publish_run

facts = st.lists(
    st.builds(
        Fact,
        object=st.sampled_from(["red circle", "blue square"]),
        predicate=st.just("moves"),
        value=st.sampled_from(["left", "right"]),
        time_s=st.sampled_from([0.0, 1.5, 2.0, 3.5, 4.0, 5.99, 6.0, 8.0]),
    ),
    max_size=8,
)


@given(facts, facts)
@settings(max_examples=300, deadline=None)
def test_matching_is_that_of_the_caption_scores(true: list[Fact], said: list[Fact]) -> None:
    assert len(told(true, said)) == count_facts(said, true).right == len(told(said, true))
    assert len(without(true, told(true, said))) == count_facts(said, true).missed


# A square goes right from 2 s to 5 s, blinks at 6.4 s, and turns green at 8.5 s.
STORY = Clip(
    1,
    11.0,
    "grey",
    (Body("square", "red", "small", 0.2, 0.5),),
    (Motion(0, "right", 0.1, 2.0, 5.0),),
    (Event("blinks", 6.4, 7.2, 0), Event("turns_colour", 8.5, 8.5, 0, "green")),
)
FIRST = (0.0, "A small red square is on a grey background.")


def left_of(tmp_path: Path, captions: list[tuple[float, str]], summary: str | None) -> list[list[str]]:
    write_truth(tmp_path / "story.json", STORY)
    rows = [{"caption": text, "end_s": time_s} for time_s, text in captions]
    left = facts_left(tmp_path / "story.json", rows, {"caption": summary} if summary is not None else None)
    return [[f"{fact.time_s:g}: {say(fact)}" for fact in facts] for facts in left]


def test_every_loss_belongs_to_its_stage(tmp_path: Path) -> None:
    captions = [
        FIRST,
        (6.0, "The red square moves right."),  # no key frame at 4 s: one movement of two intervals
        (10.0, "The red square turns blue."),
    ]
    summary = "At 0.00 seconds: A large red square is on a grey background."
    whole, visible, shown, said, summed = left_of(tmp_path, captions, summary)
    first = ["0: the background is grey", "0: there is a red square", "0: the red square is small"]
    moves = ["4: the red square moves right", "6: the red square moves right"]
    turns = "10: the red square turns green"
    assert sorted(whole) == sorted(
        [*first, *moves, turns, "6.4: the red square disappears", "7.2: the red square appears"]
    )
    assert sorted(visible) == sorted([*first, *moves, turns])
    assert sorted(shown) == sorted([*first, moves[0], turns])
    assert sorted(said) == sorted([*first, moves[0]])
    assert sorted(summed) == sorted(first[:2])


def test_a_perfect_run_loses_what_sampling_cannot_show(tmp_path: Path) -> None:
    captions = [
        FIRST,
        (4.0, "The red square moves right."),
        (6.0, "The red square moves right."),
        (10.0, "The red square turns green."),
    ]
    summary = " ".join(f"At {time_s:.2f} seconds: {text}" for time_s, text in captions)
    left = left_of(tmp_path, captions, summary)
    assert [len(facts) for facts in left] == [8, 6, 6, 6, 6]


def test_a_blink_that_a_sample_shows_is_lost_before_the_sampling(tmp_path: Path) -> None:
    """Whether it is seen is chance, so nobody is asked for it; who tells it loses nothing."""
    write_truth(tmp_path / "story.json", replace(STORY, events=(Event("blinks", 5.8, 6.4, 0),)))
    captions = [
        FIRST,
        (4.0, "The red square moves right."),
        (6.0, "The red square disappears."),
        (8.0, "A small red square appears."),
    ]
    rows = [{"caption": text, "end_s": time_s} for time_s, text in captions]
    whole, visible, shown, said, _ = facts_left(tmp_path / "story.json", rows, None)
    assert [say(fact) for fact in without(whole, visible)] == [
        "the red square disappears",
        "the red square appears",
        "the red square is small",
    ]
    assert len(visible) == 4 and visible == shown == said


def test_a_clip_without_a_summary_has_none_of_its_facts_in_it(tmp_path: Path) -> None:
    assert [len(facts) for facts in left_of(tmp_path, [FIRST], None)] == [8, 6, 3, 3, 0]


@pytest.mark.parametrize("errors", [0.0, 0.3, 1.0])
def test_a_funnel_only_narrows(store: LocalStore, tmp_path: Path, errors: float) -> None:
    run = publish_run(store, tmp_path, clips=3, errors=errors, side=32)
    funnel = fact_funnel(RunTables(store, run.refs), run.truth)
    assert funnel is not None
    numbers = [stage.facts for stage in funnel.stages]
    assert funnel.clips == 3
    assert numbers == sorted(numbers, reverse=True)
    for kind in funnel.kinds:
        by_kind = [stage.kinds.get(kind, 0) for stage in funnel.stages]
        assert by_kind == sorted(by_kind, reverse=True)
    assert all(sum(stage.kinds.values()) == stage.facts for stage in funnel.stages)
    visible, shown, said, summed = numbers[1:]
    assert shown == visible  # the material has a key frame wherever something changed
    assert (said == shown) == (errors == 0.0)
    assert all(
        bool(stage.lost) == (stage.facts < before)
        for before, stage in zip(numbers, funnel.stages[1:], strict=False)
    )
    assert summed <= said


def test_no_truth_no_funnel(kept_store: LocalStore, run: Run, tmp_path: Path) -> None:
    assert fact_funnel(RunTables(kept_store, run.refs), tmp_path) is None
    assert fact_funnel(RunTables(kept_store, {}), run.truth) is None
