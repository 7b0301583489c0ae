"""Scores of a dataset's captions, role by role, against the truth files beside the clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share4video.errors import UserError
from share4video.media.decode import uniform_frames
from share4video.media.probe import probe
from share4video.media.sampling import every
from share4video.store import LocalStore
from share4video.synthetic.caption_scores import brief_facts, brief_times, score_dataset
from share4video.synthetic.clips import write_clip
from share4video.synthetic.language import Fact, brief_caption, parse_brief
from share4video.synthetic.world import Body, Clip, Motion, sample_clip
from tests.report.material import publish_run

WAITING = Clip(1, 12.0, "dark", (Body("circle", "red", "small", 0.5, 0.5),), (), ())


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_reference_sentence_tells_what_its_frames_show(seed: int) -> None:
    clip = sample_clip(seed)
    times_s = every(clip.duration_s, clip.duration_s / 4)
    known = brief_facts(clip, times_s)
    said = parse_brief(brief_caption([clip.state_at(time_s) for time_s in times_s]))
    assert set(known.observable) <= set(said) <= {*known.observable, *known.doubtful}
    assert len(said) == len(set(said))


@pytest.mark.parametrize(("travelled", "manner"), [(0.03, "still"), (0.06, None), (0.2, "moving")])
def test_whether_a_small_movement_counts(travelled: float, manner: str | None) -> None:
    clip = replace(WAITING, motions=(Motion(0, "left", travelled / 3, 2.0, 5.0),))
    known = brief_facts(clip, [0.0, 6.0])
    manners = {fact.predicate for fact in known.observable} & {"moving", "still"}
    assert manners == ({manner} if manner else set())
    assert {fact.predicate for fact in known.doubtful} == (set() if manner else {"moving", "still"})


def test_sentences_that_say_nothing() -> None:
    assert parse_brief("") == parse_brief("A cat sits on a red sofa.") == []
    assert parse_brief("An empty light background.") == [Fact("scene", "background", "light", 0.0)]


def test_brief_frames_are_those_the_stage_takes(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", WAITING)
    found = probe(tmp_path / "clip.mp4")
    clip = {"start_s": 0.0, "end_s": found.duration_s, "fps": found.fps}
    shown = uniform_frames(tmp_path / "clip.mp4", 4, 0.0, found.duration_s, max_side=64)
    assert brief_times(clip) == pytest.approx([frame.timestamp_s for frame in shown])
    assert brief_times({**clip, "end_s": 0.01}) == [0.0] * 4


def test_a_perfect_dataset_scores_one_in_every_role(store: LocalStore, tmp_path: Path) -> None:
    run = publish_run(store, tmp_path, clips=3, errors=0.0, side=32)
    scores = score_dataset(store, run.refs["dataset"], run.truth)
    assert list(scores) == ["brief", "sliding", "summary", "fast"]
    assert all((score.f1.estimate, score.wrong, score.missed) == (1.0, 0, 0) for score in scores.values())
    assert all(score.clips == 3 for score in scores.values())


def test_errors_cost_and_clips_without_truth_do_not_count(store: LocalStore, tmp_path: Path) -> None:
    run = publish_run(store, tmp_path, clips=3, errors=1.0, side=32)
    (run.truth / "clip-0001.json").unlink()
    scores = score_dataset(store, run.refs["dataset"], run.truth)
    assert scores["brief"].f1.estimate == 1.0  # the material errs in the other roles
    assert scores["sliding"].missed > 0 and scores["sliding"].wrong == 0
    assert all(score.clips == 2 for score in scores.values())
    (run.truth / "clip-0000.json").unlink()
    (run.truth / "clip-0002.json").unlink()
    assert score_dataset(store, run.refs["dataset"], run.truth) == {}


def test_short_states_are_scored_apart(store: LocalStore, tmp_path: Path) -> None:
    """One clip in which a sample falls into a blink, one whose blink is between two samples."""
    clear, blind = (
        publish_run(store, tmp_path / str(seed), clips=1, errors=0.0, seed=seed, side=32)
        for seed in (521, 511)
    )
    scores = score_dataset(store, clear.refs["dataset"], clear.truth)
    assert scores["brief"].short is None
    for role in ("sliding", "summary", "fast"):
        score, short = scores[role], scores[role].short
        assert short is not None and score.f1.estimate == 1.0
        assert (short.facts, short.shown, short.told, short.recall) == (3, 3, 3, 1.0)
    short = score_dataset(store, blind.refs["dataset"], blind.truth)["sliding"].short
    assert short is not None and (short.facts, short.shown, short.told, short.recall) == (3, 0, 0, None)


def test_truth_that_is_none_is_a_mistake(store: LocalStore, tmp_path: Path) -> None:
    run = publish_run(store, tmp_path / "truth", clips=1, side=32)
    with pytest.raises(UserError, match="no folder"):
        score_dataset(store, run.refs["dataset"], tmp_path / "elsewhere")
    (run.truth / "clip-0000.json").write_text('{"clip": 1}')
    with pytest.raises(UserError, match="not the truth"):
        score_dataset(store, run.refs["dataset"], run.truth)
