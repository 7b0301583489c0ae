"""Which training samples captions become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.chat import PRE_QUERY
from share4video.dataset.messages import check_messages
from share4video.dataset.mixture import (
    CAPTION_SOURCE,
    QA,
    ClipCaptions,
    Sample,
    TimedCaption,
    caption_sample,
    derangement,
    question_samples,
    select,
    shuffle_captions,
)


class Echo:
    """Asks for every differential caption."""

    version = "echo-1"

    def __call__(self, differentials: Sequence[TimedCaption], summary: str) -> list[QA]:
        return [QA("echo", "System.", f"What at {d.end_s}?", d.text) for d in differentials]


def _clips(count: int) -> list[ClipCaptions]:
    return [
        ClipCaptions(f"clip{i}", (TimedCaption(0.0, 2.0, f"change {i}"),), f"summary {i}")
        for i in range(count)
    ]


@given(st.integers(2, 60), st.integers(0, 5))
def test_a_derangement_moves_everything(size: int, seed: int) -> None:
    order = derangement(size, seed)
    assert sorted(order) == list(range(size))
    assert all(place != other for place, other in enumerate(order))
    assert order == derangement(size, seed)


def test_one_thing_cannot_be_deranged() -> None:
    with pytest.raises(ValueError, match="at least two"):
        derangement(1, 0)


def test_shuffled_clips_keep_their_names_and_tell_of_another_clip() -> None:
    clips = _clips(9)
    shuffled = shuffle_captions(clips, 3)
    assert [clip.clip_id for clip in shuffled] == [clip.clip_id for clip in clips]
    assert {clip.summary for clip in shuffled} == {clip.summary for clip in clips}
    for before, after in zip(clips, shuffled, strict=True):
        assert before.summary != after.summary
        assert after.differentials[0].text.split()[1] == after.summary.split()[1]


def test_the_description_is_asked_for_as_the_chat_model_is_asked() -> None:
    sample = caption_sample(_clips(1)[0])
    check_messages(sample.messages, image=True)
    question, answer = sample.messages
    assert question.content.startswith(f"<image>\n{PRE_QUERY}Describe")
    assert answer.content == "summary 0"


def test_questions_carry_the_writers_words_and_come_once() -> None:
    differential = TimedCaption(0.0, 2.0, "The circle moves.")
    samples = question_samples(ClipCaptions("c", (differential, differential), ""), Echo())
    (sample,) = samples
    assert sample.source == "question:echo"
    assert [m.content for m in sample.messages] == [
        "System.",
        "<image>\nWhat at 2.0?",
        "The circle moves.",
    ]


def _samples(captions: int, questions: int) -> list[Sample]:
    made = [caption_sample(clip) for clip in _clips(captions)]
    for clip in _clips(questions):
        made += question_samples(clip, Echo())
    return made


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 40), st.floats(0, 1), st.integers(0, 3))
def test_a_choice_fills_the_room_there_is(
    captions: int, questions: int, room: int, share: float, seed: int
) -> None:
    samples = _samples(captions, questions)
    chosen = select(samples, max_samples=room, caption_share=share, seed=seed)
    assert len(chosen) == min(room, len(samples))
    assert [s for s in samples if s in chosen] == chosen
    kinds = Counter(sample.source == CAPTION_SOURCE for sample in chosen)
    if len(samples) > room and captions >= room and questions >= room:
        assert kinds[True] == round(room * share)


def test_another_seed_chooses_other_samples() -> None:
    samples = _samples(20, 20)
    chosen = [select(samples, max_samples=10, caption_share=0.5, seed=seed) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_the_synthetic_writer_asks_as_the_evaluation_does() -> None:
    from share4video.evaluation import mvbench
    from share4video.synthetic.qa import SyntheticQuestionWriter

    captions = [
        TimedCaption(0.0, 0.0, "A large red circle and a small blue square are on a grey background."),
        TimedCaption(0.0, 2.0, "The red circle moves left."),
        TimedCaption(2.0, 4.0, "Nothing changes."),
        TimedCaption(4.0, 6.0, "The blue square turns green."),
    ]
    writer = SyntheticQuestionWriter()
    asked = writer(captions, "")
    assert asked == writer(captions, "")
    assert {"direction", "change", "colour"} <= {qa.task for qa in asked}
    for qa in asked:
        assert qa.system == mvbench.SYSTEM
        assert qa.question.startswith(f"{PRE_QUERY}Question: ")
        reply = qa.answer.removeprefix(mvbench.PREFILL)
        letter, _, text = reply.partition(") ")
        assert f"({letter}) {text}" in qa.question.splitlines()
