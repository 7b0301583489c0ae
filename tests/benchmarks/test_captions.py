"""The caption benchmark: perfect answers score one, others do not, and every clip is judged."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.captions import BARS, OWN_SUMMARY, key_frame_scores, measure, tables, write_clips
from benchmarks.environment import environment
from benchmarks.true_inputs import (
    Subject,
    differential_facts,
    differential_requests,
    summary_facts,
    summary_requests,
)
from share4video.captioning.roles import KeyFrame
from share4video.config import EngineSpec
from share4video.evaluation.captions import score_captions
from share4video.media.sampling import every
from share4video.synthetic import language
from share4video.synthetic.caption_scores import ShortScore, score_short
from share4video.synthetic.known_facts import known_changes
from share4video.synthetic.world import sample_clip
from tests.engines import FakeEngine, picture

SPEC = EngineSpec(url="http://127.0.0.1:9/v1", model="none")


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    found = []
    for seed in range(40, 46):
        clip = sample_clip(seed, duration_s=(10.0, 20.0))
        times_s = every(clip.duration_s, 4.0)  # every other sample: some changes have no key frame
        frames = tuple(KeyFrame(n, time_s, picture("grey")) for n, time_s in enumerate(times_s, 1))
        found.append(Subject(str(seed), clip, Path("none"), frames))
    return found


def test_perfect_answers_score_one(subjects: list[Subject]) -> None:
    texts = {
        f"{s.clip_id}/{number}": caption.caption
        for s in subjects
        for number, caption in enumerate(s.true_captions)
    }
    score = score_captions([differential_facts(s, texts) for s in subjects])
    assert score.f1.estimate == 1.0 and score.right > 10
    summaries = {
        s.clip_id: language.summary_caption([(c.timestamp_s, c.caption) for c in s.true_captions])
        for s in subjects
    }
    score = score_captions([summary_facts(s, summaries) for s in subjects])
    assert score.f1.estimate == 1.0 and score.right > 20


def test_no_answer_misses_everything(subjects: list[Subject]) -> None:
    for judge in (differential_facts, summary_facts):
        score = score_captions([judge(s, {}) for s in subjects])
        assert (score.right, score.wrong) == (0, 0) and score.missed > 10


def test_the_true_caption_before_is_what_is_given(subjects: list[Subject]) -> None:
    subject = subjects[0]
    requests = differential_requests(subject, SPEC)
    assert list(requests) == [f"{subject.clip_id}/{n}" for n in range(1, len(subject.frames))]
    for number, build in enumerate(requests.values()):
        image, text = build().messages[0]["content"]
        assert image["type"] == "image_url"
        assert text["text"].endswith(f"What happend before is: {subject.true_captions[number].caption}")
    [build] = summary_requests(subject, SPEC).values()
    [text] = build().messages[0]["content"]
    assert all(caption.caption in text["text"] for caption in subject.true_captions)


def test_key_frames_that_pass_changes_over(subjects: list[Subject]) -> None:
    scores = key_frame_scores(subjects)
    assert 0 < scores["recall"]["estimate"] < 1
    everything = [
        Subject(
            s.clip_id,
            s.clip,
            s.truth,
            tuple(KeyFrame(n, t, b"") for n, t in enumerate(every(s.clip.duration_s, 2.0), 1)),
        )
        for s in subjects
    ]
    assert key_frame_scores(everything)["recall"]["estimate"] == 1.0


def blinking() -> Subject:
    """A clip that blinks at a sample, with a key frame at every sample."""
    clip = sample_clip(21, duration_s=(10.0, 20.0))
    times_s = every(clip.duration_s, 2.0)
    frames = tuple(KeyFrame(n, time_s, b"") for n, time_s in enumerate(times_s, 1))
    return Subject("21", clip, Path("none"), frames)


def test_short_states_are_told_apart() -> None:
    subject = blinking()
    texts = {f"21/{number}": caption.caption for number, caption in enumerate(subject.true_captions)}
    silent = {name: text for name, text in texts.items() if "appears" not in text}
    silent |= {name: "Nothing changes." for name in texts if name not in silent}
    for said, told in ((texts, 3), (silent, 0)):
        judged = differential_facts(subject, said)
        assert score_captions([judged]).f1.estimate == 1.0
        assert score_short([judged]) == ShortScore(facts=3, shown=3, told=told, recall=told / 3)


def test_key_frames_of_short_states_are_told_apart() -> None:
    whole = blinking()
    scores = key_frame_scores([whole])
    assert (scores["short_changes"], scores["short_changes_with_a_key_frame"]) == (2, 2)
    gone = {round(change.time_s, 3) for change in short_changes(whole)}
    rest = replace(whole, frames=tuple(f for f in whole.frames if round(f.timestamp_s, 3) not in gone))
    without = key_frame_scores([rest])
    assert (without["short_changes"], without["short_changes_with_a_key_frame"]) == (2, 0)
    for name in ("recall", "key_frames_per_change", "observable_changes", "key_frames"):
        assert without[name] == scores[name]


def short_changes(subject: Subject) -> list[language.Fact]:
    known = known_changes(subject.clip, every(subject.clip.duration_s, 2.0))
    return [change.fact for pair in known for change in pair if change.short]


def test_clips_of_an_earlier_version_are_written_again(tmp_path: Path) -> None:
    folders = tmp_path / "source", tmp_path / "truth"
    write_clips(*folders, 1)
    truth = folders[1] / "held-0000.json"
    written = truth.read_bytes()
    truth.write_text("{}")
    write_clips(*folders, 1)
    assert truth.read_bytes() == written


def test_the_whole_benchmark(fake_engine: FakeEngine, tmp_path: Path) -> None:
    """Real clips and stages; the engine says the same of everything and fails some calls for good."""
    fake_engine.settings(answer="The red circle moves left.", bad_prompt="Video frame 2 at")
    spec = fake_engine.spec()
    results = measure(tmp_path, 2, spec, spec)
    assert set(BARS) | {OWN_SUMMARY, "fast"} == set(results["roles"])
    assert all(score["clips"] == 2 and score["f1"]["estimate"] < 1 for score in results["roles"].values())
    assert results["key_frames"]["recall"]["estimate"] >= 0.9
    assert results["failed_calls"] > 0
    assert set(results["short_states"]) == set(results["roles"])
    assert all(set(own) == {"facts", "shown", "told", "recall"} for own in results["short_states"].values())
    assert results["engines"] == {"captioner": "fake@1", "summarizer": "fake@1"}
    results |= environment(["numpy", "no-such-package"])
    assert json.loads(json.dumps(results)) == results
    assert results["versions"]["no-such-package"] == "not installed"
    sink = io.StringIO()
    Console(file=sink, width=80).print(*tables(results))
    assert "differential (true before)" in sink.getvalue() and "at least 0.95" in sink.getvalue()
    assert "Facts of short states" in sink.getvalue() and "short ones with a key frame" in sink.getvalue()
