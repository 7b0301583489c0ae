"""The captioner is taught with what it said itself, as the shipped model would say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from share4video.captioning.sharecaptioner import HAPPENED_BEFORE
from share4video.synthetic import lessons, nano, own_captions
from share4video.synthetic.learner import Learner
from share4video.synthetic.lesson_store import LessonStore, own_file, write_shard
from share4video.synthetic.own_captions import caption, write_own_lessons
from share4video.synthetic.pretrain import Recipe, train

CAPTIONER = Path(nano.__file__).parent / "weights" / "nano-captioner"
SEEDS = (1, 2)


@pytest.fixture(scope="module")
def processor() -> Any:
    return nano.load_processor(CAPTIONER)


@pytest.fixture(scope="module")
def learner(processor: Any) -> Learner:
    from transformers import LlavaNextForConditionalGeneration

    learner = Learner("captioner", processor.tokenizer, seed=0)
    learner.model = LlavaNextForConditionalGeneration.from_pretrained(CAPTIONER, dtype=torch.float32)
    return learner


@pytest.fixture
def taught(tmp_path: Path, processor: Any) -> tuple[list[lessons.Picture], list[lessons.Lesson]]:
    """The lessons of two clips, written to ``tmp_path`` as shard 0."""
    pictures: list[lessons.Picture] = []
    found: list[lessons.Lesson] = []
    for seed in SEEDS:
        shown, said = lessons.captioner_lessons(seed)
        found += [lessons.Lesson(x.role, len(pictures) + (x.picture or 0), x.turns) for x in said]
        pictures += shown
    write_shard(tmp_path, 0, pictures, found, processor)
    return pictures, found


def captioned(
    found: list[lessons.Lesson], folder: Path, learner: Learner, processor: Any
) -> tuple[list[lessons.Lesson], LessonStore, list[str]]:
    """Return the sliding lessons, their store, and what the learner says to each."""
    sliding = [lesson for lesson in found if lesson.role == "sliding"]
    store = LessonStore(folder, [0], processor)
    return sliding, store, caption(learner, store, store.rows["sliding"], processor.tokenizer)


def test_it_says_what_the_shipped_model_says(
    tmp_path: Path, taught: Any, learner: Learner, processor: Any
) -> None:
    pictures, found = taught
    sliding, _, said = captioned(found, tmp_path, learner, processor)
    assert len(said) == len(sliding)
    for lesson, ours in zip(sliding, said, strict=True):
        content = [{"type": "image"}, {"type": "text", "text": lesson.turns[0].text}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        inputs = processor(text=[text], images=[pictures[lesson.picture].image], return_tensors="pt")
        model: Any = learner.model
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=96, do_sample=False)
        shipped = processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert ours == shipped.strip()


def test_each_lesson_tells_what_was_said_of_the_pair_before(
    tmp_path: Path, taught: Any, learner: Learner, processor: Any
) -> None:
    _, found = taught
    sliding, store, said = captioned(found, tmp_path, learner, processor)
    own = json.loads(write_own_lessons(learner, store, 0, processor.tokenizer).read_text())
    assert len(own) == len(sliding) - len(SEEDS)  # before the first pair of a clip, it said nothing of a pair
    by_prompt = {lesson.turns[0].text.partition(HAPPENED_BEFORE)[0]: [] for lesson in sliding}
    for before, lesson in zip(["", *said], sliding, strict=False):
        by_prompt[lesson.turns[0].text.partition(HAPPENED_BEFORE)[0]].append((before, lesson.turns[1].text))
    for lesson in own:
        (_, prompt, _), (_, answer, _) = lesson["turns"]
        asked, _, before = prompt.partition(HAPPENED_BEFORE)
        assert (before, answer) in by_prompt[asked]


def test_training_on_own_captions_goes_on_where_it_was_stopped(
    tmp_path: Path, taught: Any, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_captions, "MAX_TOKENS", 8)  # random weights never end a caption
    recipe = Recipe(
        clips=2,
        steps=4,
        tower_steps=0,
        batch=2,
        lr=1e-3,
        shares={"sliding": 1.0},
        own_steps=2,
        own_shards=1,
    )
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        processor.save_pretrained(folder / "processor")
    once = train("captioner", whole, tmp_path, [0], recipe, seed=0)
    own = own_file(tmp_path, 0).read_bytes()
    train("captioner", halves, tmp_path, [0], recipe, seed=0, stop_after=1)
    assert not own_file(tmp_path, 0).exists()  # of another run
    train("captioner", halves, tmp_path, [0], recipe, seed=0, stop_after=2)
    twice = train("captioner", halves, tmp_path, [0], recipe, seed=0)
    assert own_file(tmp_path, 0).read_bytes() == own
    for one, two in zip(once.parameters(), twice.parameters(), strict=True):
        assert torch.equal(one, two)
