"""The truth file: which facts belong to short states, the clip's events, paraphrases, and other files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share4video.errors import UserError
from share4video.evaluation.captions import count_facts
from share4video.synthetic.caption_scores import JudgedClip, KnownFacts, read_facts, score_short
from share4video.synthetic.happenings import happenings
from share4video.synthetic.known_facts import (
    all_facts,
    known_changes,
    known_facts,
    sampled_times,
    unseen_blinks,
)
from share4video.synthetic.language import Fact, brief_caption, parse_brief
from share4video.synthetic.truth import check_truth_folder, read_clip, truth, uniform_times, write_truth
from share4video.synthetic.world import Body, Clip, Event, Motion, sample_clip

CIRCLE = Body("circle", "red", "small", 0.5, 0.5)
SQUARE = Body("square", "blue", "large", 0.25, 0.25)
WAITING = Clip(1, 13.0, "dark", (CIRCLE,), (), ())


def blinking(start_s: float, end_s: float, *others: Event) -> Clip:
    return replace(WAITING, events=(Event("blinks", start_s, end_s, 0), *others))


def short_facts(clip: Clip) -> list[tuple[str, float, bool]]:
    return [(k.fact.predicate, k.fact.time_s, k.observable) for k in known_facts(clip) if k.short]


@pytest.mark.parametrize(
    ("start_s", "end_s", "gone_s", "back_s", "seen"),
    [
        (5.8, 6.4, 6.0, 8.0, True),
        (6.0, 6.4, 6.0, 8.0, True),  # the sample at its start shows it, the one at its end does not
        (5.5, 6.0, 6.0, 6.0, False),
        (6.4, 7.2, 8.0, 8.0, False),
        (12.2, 12.9, 12.9, 12.9, False),  # nothing is sampled after it
    ],
)
def test_a_blink_is_short_whether_it_is_sampled_or_not(
    start_s: float, end_s: float, gone_s: float, back_s: float, seen: bool
) -> None:
    assert short_facts(blinking(start_s, end_s)) == [
        ("disappears", gone_s, seen),
        ("appears", back_s, seen),
        ("size", back_s, seen),
    ]


def test_what_lasts_is_not_short() -> None:
    assert short_facts(blinking(5.8, 8.4)) == []  # long enough for every sampling
    for_good = blinking(5.5, 6.7, Event("disappears", 8.0, 8.0, 0))
    facts = [k for k in known_facts(for_good) if k.observable]
    assert [(k.fact.predicate, k.fact.time_s, k.short) for k in facts[3:]] == [("disappears", 6.0, False)]


def test_short_states_depend_on_which_frames_are_looked_at() -> None:
    clip = blinking(5.8, 6.4)
    assert [k.short for pair in known_changes(clip, [0.0, 6.0, 12.0]) for k in pair] == [True] * 3
    assert known_changes(clip, [0.0, 4.0, 12.0]) == [[], []]
    assert [k.fact.time_s for k in unseen_blinks(clip, [0.0, 4.0, 12.0])] == [12.0] * 3
    assert unseen_blinks(clip, [0.0, 6.0, 12.0]) == []


@given(st.integers(0, 1 << 20))
@settings(max_examples=60, deadline=None)
def test_facts_are_those_of_the_captions_and_the_blinks_between(seed: int) -> None:
    clip = sample_clip(seed)
    known = known_facts(clip)
    seen = [(k.fact, k.observable) for k in known if k.observable or not k.short]
    assert seen == all_facts(clip)
    assert sum(k.short for k in known) % 3 == 0
    assert bool([k for k in known if k.short]) == bool(clip.blinks)
    assert not [k for k in known_facts(clip.without_blinks()) if k.short]
    assert [k.fact.time_s for k in known] == sorted(k.fact.time_s for k in known)


@pytest.mark.parametrize("clip", [blinking(5.8, 6.4), blinking(6.4, 7.2)])
def test_scores_neither_reward_nor_punish_a_blink(clip: Clip) -> None:
    known = KnownFacts.of(known_facts(clip))
    lasting, blink = [*known.observable], [*known.short, *known.unseen]
    assert len(lasting) == len(blink) == 3
    for said in (lasting, [*lasting, *blink], [*lasting, *blink[:1]]):
        counts = count_facts(said, known.observable, known.ignored)
        assert (counts.right, counts.wrong, counts.missed) == (3, 0, 0)
    judged = [JudgedClip.of("a", said, known) for said in (lasting, [*lasting, *blink[:1]])]
    score, shown = score_short(judged), 2 * len(known.short)
    assert (score.facts, score.shown, score.told) == (6, shown, 1 if shown else 0)
    assert score.recall == (pytest.approx(1 / 6) if shown else None)


def names(clip: Clip) -> list[tuple[str, str, str, float, bool]]:
    return [(h.name, h.object, h.value, h.start_s, h.observable) for h in happenings(clip)]


def test_what_comes_and_goes_has_its_usual_name() -> None:
    clip = replace(
        WAITING,
        duration_s=29.0,
        bodies=(CIRCLE, replace(SQUARE, present=False)),
        events=(
            Event("appears", 2.5, 2.5, 1),
            Event("disappears", 5.0, 5.0, 1),
            Event("turns_colour", 8.0, 8.0, 0, "green"),
            Event("appears", 11.0, 11.0, 1),
            Event("blinks", 14.5, 15.5, 0),
            Event("blinks", 17.5, 18.5, 0),
            Event("cut", 20.5, 20.5, None, "light"),
            Event("pan", 23.0, 25.0, None, "left"),
            Event("disappears", 28.5, 28.5, 0),
        ),
    )
    assert names(clip) == [
        ("appears", "blue square", "", 2.5, True),
        ("disappears", "blue square", "", 5.0, True),
        ("changes colour", "red circle", "green", 8.0, True),
        ("returns", "blue square", "", 11.0, True),
        ("blink", "green circle", "", 14.5, False),
        ("blink", "green circle", "", 17.5, True),
        ("scene cut", "scene", "light", 20.5, True),
        ("camera pan", "camera", "left", 23.0, True),
        ("disappears", "green circle", "", 28.5, False),  # nothing is sampled after it
    ]
    assert [h.name for h in happenings(clip) if h.short] == ["blink"] * 2


@pytest.mark.parametrize(
    ("motions", "events", "expected"),
    [
        # the rest from 6 to 13 s holds two samples
        ([("left", 0.1, 3.0, 6.0)], (), [("stops", "left", 6.0, True)]),
        # from 6.1 to 8.7 s it rests, which only the sample at 8 s falls into
        (
            [("left", 0.1, 3.0, 6.1), ("up", 0.1, 8.7, 12.9)],
            (),
            [("stops", "left", 6.1, False)],
        ),
        # too slow for a movement that is beyond doubt
        ([("left", 0.03, 3.0, 6.0)], (), [("stops", "left", 6.0, False)]),
        (
            [("left", 0.1, 3.0, 6.0), ("up", 0.1, 6.0, 9.0)],
            (),
            [("turns", "up", 6.0, True), ("stops", "up", 9.0, True)],
        ),
        ([("left", 0.1, 3.0, 6.0), ("up", 0.03, 7.5, 12.5)], (), [("turns", "up", 7.5, False)]),
        # on in the same direction is no turn, a second pause is no stop
        ([("left", 0.1, 3.0, 6.0), ("left", 0.1, 7.0, 12.0)], (), []),
        # gone before it has rested
        ([("left", 0.1, 3.0, 6.0)], (Event("disappears", 7.0, 7.0, 0),), [("disappears", "", 7.0, True)]),
        # the end of the clip is not a stop
        ([("left", 0.1, 9.0, 13.0)], (), []),
    ],
)
def test_stops_and_turns(
    motions: list[tuple[str, float, float, float]],
    events: tuple[Event, ...],
    expected: list[tuple[str, str, float, bool]],
) -> None:
    moved = tuple(Motion(0, *motion) for motion in motions)
    clip = replace(WAITING, motions=moved[::-1], events=events)  # as twins have them: in no order
    assert [(h.name, h.value, h.start_s, h.observable) for h in happenings(clip)] == expected


@given(st.integers(0, 1 << 20))
@settings(max_examples=60, deadline=None)
def test_every_event_has_a_name_and_what_is_observable_is_in_the_facts(seed: int) -> None:
    clip = sample_clip(seed)
    found = happenings(clip)
    assert len([h for h in found if h.name not in ("stops", "turns")]) == len(clip.events)
    assert found == happenings(clip)
    facts = [k for k in known_facts(clip) if k.observable]
    predicates = {"returns": "appears", "changes colour": "turns_colour", "scene cut": "cut"}
    predicates |= {"camera pan": "pans", "blink": "disappears", "stops": "moves", "turns": "moves"}
    for happening in (h for h in found if h.observable):
        predicate = predicates.get(happening.name, happening.name)
        assert any(
            k.fact.predicate == predicate
            and k.short == happening.short
            # what stops was seen to move before, and what turns is seen to move after
            and happening.start_s - 2.0 < k.fact.time_s < happening.end_s + 4.0
            for k in facts
        )


@given(st.integers(0, 1 << 20), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_every_wording_of_a_brief_caption_says_the_same(seed: int, wording: int) -> None:
    clip = sample_clip(seed)
    states = [clip.state_at(t) for t in uniform_times(clip.duration_s)]
    canonical, other = brief_caption(states), brief_caption(states, np.random.default_rng(wording))
    assert other != canonical
    assert parse_brief(other) == parse_brief(canonical)


def test_brief_wordings_of_nothing() -> None:
    empty = [replace(WAITING, bodies=()).state_at(0.0)]
    assert brief_caption(empty) == "An empty dark background."
    said = {brief_caption(empty, np.random.default_rng(seed)) for seed in range(20)}
    assert len(said) == 2
    assert all(parse_brief(text) == [Fact("scene", "background", "dark", 0.0)] for text in said)


def test_the_file_holds_it_all(tmp_path: Path) -> None:
    clip = sample_clip(521, duration_s=(10.0, 16.0))
    write_truth(tmp_path / "clip.json", clip)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.json"]
    told = json.loads((tmp_path / "clip.json").read_text())
    assert told == json.loads(json.dumps(truth(clip)))
    assert [entry["short"] for entry in told["facts"]] == [k.short for k in known_facts(clip)]
    assert [entry["name"] for entry in told["events"]] == [h.name for h in happenings(clip)]
    assert "blink" in {entry["name"] for entry in told["events"]}
    briefs = [captions["brief"] for captions in told["captions"]]
    assert briefs[0] not in briefs[1:] and len(briefs) == 3
    assert briefs[0] == brief_caption([clip.state_at(t) for t in uniform_times(clip.duration_s)])
    assert len(uniform_times(clip.duration_s)) == 4 < len(sampled_times(clip))
    assert read_clip(tmp_path / "clip.json") == clip
    assert read_facts(tmp_path / "clip.json") == KnownFacts.of(known_facts(clip))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[1, 2]",
        b'{"anything": 1}',
        b'{"clip": {"seed": 1}, "facts": []}',
        b'{"clip": [], "facts": 3}',
    ],
)
def test_another_file_is_a_mistake(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.json").write_bytes(content)
    for read in (read_clip, read_facts):
        with pytest.raises(UserError, match=r"not the truth of a synthetic clip .*clip\.json"):
            read(tmp_path / "clip.json")


def test_a_truth_of_an_earlier_version_is_a_mistake(tmp_path: Path) -> None:
    told = truth(WAITING)
    for entry in told["facts"]:
        del entry["short"]
    (tmp_path / "clip.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="write the clips again"):
        read_facts(tmp_path / "clip.json")


def test_a_folder_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    check_truth_folder(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        check_truth_folder(tmp_path / "truth")
