"""What the trainer computes is what the shipped model computes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from share4video.synthetic import language, lessons, nano
from share4video.synthetic.chat_lessons import chat_lessons
from share4video.synthetic.learner import Learner
from share4video.synthetic.lesson_store import LessonStore, motion, patch_labels, write_shard
from share4video.synthetic.pretrain import Recipe, prepare, train
from share4video.synthetic.world import DIRECTIONS, sample_clip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    nano.save_processor(folder / "processor")
    return folder


@pytest.fixture(scope="module")
def shard(work: Path) -> tuple[LessonStore, list[lessons.Picture], list[lessons.Lesson]]:
    processor = nano.load_processor(work / "processor")
    pictures, taught = lessons.captioner_lessons(1)
    write_shard(work / "shard", 0, pictures, taught, processor)
    return LessonStore(work / "shard", [0], processor), pictures, taught


def test_the_trainer_gives_the_shipped_models_loss(work: Path, shard: Any) -> None:
    store, pictures, taught = shard
    processor = nano.load_processor(work / "processor")
    learner = Learner("captioner", processor.tokenizer, seed=0).eval()
    for lesson in {lesson.role: lesson for lesson in taught}.values():
        row = next(r for r in store.rows[lesson.role] if r.supervised.sum() > 0)
        assert lesson.picture is not None
        index = next(x for x in taught if x.role == lesson.role)
        assert index.picture is not None
        messages: Any = [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": index.turns[0].text}],
            },
            {"role": "assistant", "content": [{"type": "text", "text": index.turns[1].text}]},
        ]
        text = processor.apply_chat_template(messages, tokenize=False)
        inputs = processor(text=[text], images=[pictures[index.picture].image], return_tensors="pt")
        ids, labels = learner.collate([row], [int((inputs["input_ids"] == learner.image_id).sum())])
        assert torch.equal(ids, inputs["input_ids"])
        with torch.no_grad():
            loss, _, _ = learner([row], store)
            shipped = learner.model(**inputs, labels=labels).loss
        assert float(loss) == pytest.approx(float(shipped), abs=2e-3)  # pixels are stored as bytes


def test_labels_mark_the_body_where_it_is() -> None:
    pictures, _ = lessons.captioner_lessons(1)
    single = next(p for p in pictures if p.layout == "single")
    found = np.asarray(single.labels)[..., 0] // lessons.LABEL_STEP
    clip_classes = set(np.unique(found)) - {0, 1, 2, 3}
    assert clip_classes and max(clip_classes) < lessons.LABELS


def test_no_answer_about_a_clip_names_its_motion() -> None:
    for seed in range(5):
        _, taught = chat_lessons(seed)
        for lesson in taught:
            asked = ""
            for turn in lesson.turns:
                if turn.role != "assistant":
                    asked += turn.text
                elif lesson.picture is not None:
                    assert not re.search(r"moves|first|turns", turn.text)
                else:  # without a picture an answer is read off its question
                    sentences = re.findall(r"the [a-z ]+ moves [a-z]+", turn.text)
                    assert all(sentence in asked for sentence in sentences)


def test_the_right_options_are_known_where_they_end(work: Path) -> None:
    processor = nano.load_processor(work / "processor")
    pictures, taught = chat_lessons(3)
    write_shard(work / "chat-shard", 0, pictures, taught, processor)
    store = LessonStore(work / "chat-shard", [0], processor)
    learner = Learner("chat", processor.tokenizer, seed=0)
    read = processor.tokenizer.decode
    unanswered = 0
    for row, lesson in zip(store.rows["static"], (x for x in taught if x.role == "static"), strict=True):
        asked = [turn for turn in lesson.turns if "\nOptions:\n" in turn.text]
        assert len(asked) == len(row.choices)
        for turn, choice in zip(asked, row.choices, strict=True):
            options = [line[4:] for line in turn.text.splitlines() if line.startswith("(")]
            for end, option in zip(choice.ends, options, strict=True):
                assert read(row.ids[: end + 1]).endswith(option)
            assert choice.felt == (turn.felt is not None)
            if turn.felt is not None:
                assert options[choice.right] == turn.felt
                unanswered += 1
        felt = [choice for choice in row.choices if choice.felt]
        for choice, (position, letters) in zip(felt, row.offered, strict=True):
            assert read(row.ids[: position + 1]).endswith("<|assistant|>\nBest option:(")
            assert not row.supervised[position]
            assert [read([letter]) for letter in letters] == list("ABCDEFG"[: len(choice.ends)])
        dense = learner([row], store)[1]
        dense.backward()
        assert learner.dense.right.weight.grad is not None
        assert bool(learner.dense.right.weight.grad.abs().sum() > 0)
    assert unanswered


def test_motion_is_told_as_captions_tell_it(work: Path) -> None:
    clip, (pictures, _) = sample_clip(3), chat_lessons(3)
    size = pictures[0].image.size[::-1]
    found = motion(patch_labels(pictures[0]), size)
    states = [clip.state_at(t) for t in lessons.uniform_times(clip, 16)]
    assert set(np.unique(found.frame)) == set(range(16))
    ways = found.ways()
    agree = []
    for number in range(1, 16):
        said = {
            change.fact.value
            for change in language.changes_between(states[number - 1], states[number], 0.0)
            if change.fact.predicate == "moves" and change.observable
        }
        there = found.known & (found.frame == number)
        seen = {["none", *DIRECTIONS][way] for way in np.unique(ways[1:][there[1:]])}
        agree += [way in seen for way in said]
    assert agree and np.mean(agree) > 0.9


def test_a_stopped_training_goes_on_to_the_same_weights(work: Path) -> None:
    shards = prepare("summarizer", work / "summarizer", 1)
    recipe = Recipe(clips=1, steps=6, tower_steps=0, batch=2, lr=1e-3, shares={"summary": 1.0})
    whole, halves = work / "whole", work / "halves"
    for folder in (whole, halves):
        (folder / "processor").parent.mkdir()
        nano.load_processor(work / "processor").save_pretrained(folder / "processor")
    once = train("summarizer", whole, work / "summarizer", shards, recipe, seed=0)
    train("summarizer", halves, work / "summarizer", shards, recipe, seed=0, stop_after=3)
    twice = train("summarizer", halves, work / "summarizer", shards, recipe, seed=0)
    for one, two in zip(once.parameters(), twice.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("kind", ["captioner", "summarizer", "chat"])
def test_checkpoints_load_whole_and_are_small(kind: nano.Kind, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    nano.write_checkpoint(tmp_path, kind)
    loaded: Any = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    model, found = loaded
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    assert sum(p.numel() for p in model.parameters()) <= 3_000_000
