"""What is trained on: the words, which of them are learnt, the pictures, and what is rejected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from share4video.config import VideoChatAlignConfig, VideoChatInstructConfig
from share4video.dataset.formats.videochat import QA
from share4video.errors import UserError
from share4video.models.videochat.processor import VideoChatProcessor, build_image_processor
from share4video.models.videochat.prompts import VIDEO_REQUESTS, caption_text, conversation_text
from share4video.models.videochat.samples import (
    Reader,
    RejectedSample,
    Sample,
    Stage,
    crop_box,
    load_samples,
    one_of_each_part,
)
from tests.media.clips import write_clip
from tests.models.videochat.material import captions, conversations, write_list, write_media
from tests.models.videochat.tiny import EXTRA, QUERIES, SIDE, tiny_tokenizer

ALL_SHOWN = {"crop_min_share": 1.0}
TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def processor() -> VideoChatProcessor:
    return VideoChatProcessor(TOKENIZER, build_image_processor(SIDE), QUERIES + EXTRA)


def test_the_conversations_string_is_the_released_one() -> None:
    turns = [QA("What is it?", "A cat."), QA("Why?", "It purrs.")]
    text = conversation_text("video", [0.5, 2.0], turns)
    assert text.before + text.after == (
        "###Human: <Video></Video> The video contains 2 frames sampled at 0.5, 2.0 seconds. "
        "###Human: What is it? ###Assistant: A cat. ###Human: Why? ###Assistant: It purrs. ###"
    )
    assert [text.after[start:end] for start, end in text.answers] == [" A cat. ###", " It purrs. ###"]
    picture = conversation_text("image", [], turns[:1])
    assert picture.before + picture.after == (
        "###Human: <Image></Image> ###Human: What is it? ###Assistant: A cat. ###"
    )


def test_the_caption_string_is_the_released_one() -> None:
    text = caption_text("video", VIDEO_REQUESTS[0], "A cat.")
    assert text.before + text.after == (
        "###Human: <Video></Video> Describe the following video concisely. ###Assistant: A cat.###"
    )
    assert len(set(VIDEO_REQUESTS)) == 11


def test_only_answers_and_the_stop_behind_each_are_learnt(processor: VideoChatProcessor) -> None:
    text = conversation_text("video", [0.5], [QA("What is dark?", "it is bright"), QA("###?", "it was dark")])
    encoded = processor.encode(text)
    learnt = processor.tokenizer.decode(encoded.input_ids[encoded.supervised])
    assert learnt == " it is bright ### it was dark ###"
    rest = encoded.input_ids[~encoded.supervised & (encoded.input_ids >= 0)]
    assert processor.tokenizer.decode(rest).endswith("Human: ###? ###Assistant:")


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)] * 2),
        min_size=1,
        max_size=3,
    )
)
def test_no_token_of_a_question_or_a_separator_is_ever_learnt(turns: list[tuple[str, str]]) -> None:
    processor = VideoChatProcessor(TOKENIZER, None, QUERIES + EXTRA)
    text = conversation_text("image", [], [QA(question, answer) for question, answer in turns])
    encoded = processor.encode(text)
    offsets = processor.tokenizer(text.after, add_special_tokens=False, return_offsets_mapping=True)
    spans = offsets["offset_mapping"]
    learnt = encoded.supervised[-len(spans) :]
    for (start, end), taken in zip(spans, learnt.tolist(), strict=True):
        assert not taken or any(first <= start and end <= last for first, last in text.answers)


def test_the_visual_stands_between_its_tags(processor: VideoChatProcessor) -> None:
    ids = processor.encode(conversation_text("video", [0.5], [QA("Why?", "Yes.")])).input_ids
    places = (ids < 0).nonzero().flatten().tolist()
    assert places == list(range(places[0], places[0] + QUERIES + EXTRA))
    assert processor.tokenizer.decode(ids[: places[0]]) == "<s>###Human: <Video>"
    assert processor.tokenizer.decode(ids[places[-1] + 1 :]).startswith(
        "</Video> The video contains 1 frames"
    )


def _check(
    processor: VideoChatProcessor, file: Path, media: Path, stage: Stage, **settings_: object
) -> tuple[list[Sample], list[RejectedSample]]:
    kind = VideoChatAlignConfig if stage == 1 else VideoChatInstructConfig
    found = load_samples([file], media, stage)
    reader = Reader(processor, kind.model_validate(settings_), media)
    kept, rejected = reader.check([sample for sample in found if isinstance(sample, Sample)])
    return kept, [sample for sample in found if isinstance(sample, RejectedSample)] + rejected


def test_what_cannot_be_trained_on_is_rejected_with_its_reason(
    processor: VideoChatProcessor, media: Path, tmp_path: Path
) -> None:
    (media / "broken.mp4").write_bytes((media / "bright.mp4").read_bytes()[:700])
    (media / "broken.png").write_bytes(b"nothing")
    turns = [{"q": "What?", "a": "it is dark"}]
    elements = [
        {"video": "bright.mp4", "QA": turns},
        {"video": "broken.mp4", "QA": turns},
        {"video": "none.mp4", "QA": turns},
        {"image": "broken.png", "QA": turns},
        {"image": "../../etc/passwd", "QA": turns},
        {"image": "/etc/passwd", "QA": turns},
        {"video": "bright.mp4", "caption": "it is bright"},
        {"video": "bright.mp4", "QA": [{"q": "What?", "a": "it is dark ### bright"}]},
        {"video": "bright.mp4", "QA": [{"q": "What?", "a": "dark " * 600}]},
        {"QA": turns},
    ]
    kept, rejected = _check(processor, write_list(tmp_path / "list.json", elements), media, 2)
    assert [sample.sample_id for sample in kept] == ["list.json:1"]
    reasons = {int(sample.sample_id.partition(":")[2]): sample.reason for sample in rejected}
    assert reasons.pop(2) in ("unreadable", "truncated", "not_video")
    assert reasons == {
        3: "missing",
        4: "not_picture",
        5: "outside_media",
        6: "outside_media",
        7: "wrong_form",
        8: "stop_in_text",
        9: "too_long",
        10: "wrong_shape",
    }
    assert all(sample.sentence for sample in rejected)


def test_what_a_model_of_synthetic_clips_does_not_know_is_rejected(
    processor: VideoChatProcessor, tmp_path: Path
) -> None:
    (tmp_path / "share4video.json").write_text('{"domain": "synthetic"}')
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    write_clip(tmp_path / "noise.mp4", frames=12, still=noise)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    elements = [
        {kind: f"noise.{end}", "caption": "dark"} for kind, end in (("video", "mp4"), ("image", "png"))
    ]
    found = load_samples([write_list(tmp_path / "list.json", elements)], tmp_path, 1)
    reader = Reader(processor, VideoChatAlignConfig(), tmp_path)
    kept, rejected = reader.check([sample for sample in found if isinstance(sample, Sample)])
    assert not kept and {sample.reason for sample in rejected} == {"refused"}
    assert all("synthetic" in sample.sentence for sample in rejected)


def test_a_caption_longer_than_the_bound_is_rejected_and_not_cut(
    processor: VideoChatProcessor, media: Path, tmp_path: Path
) -> None:
    elements = [*captions(), {"video": "dark.mp4", "caption": "dark " * 40}]
    file = write_list(tmp_path / "list.json", elements)
    kept, (reject,) = _check(processor, file, media, 1)
    assert (len(kept), reject.reason, reject.bound) == (4, "too_long", 32)


def test_a_file_that_breaks_after_it_was_checked_stops_the_training(
    processor: VideoChatProcessor, tmp_path: Path
) -> None:
    folder = write_media(tmp_path / "media")
    file = write_list(folder / "list.json", conversations())
    reader = Reader(processor, VideoChatInstructConfig(), folder)
    kept, _ = reader.check(
        [sample for sample in load_samples([file], folder, 2) if isinstance(sample, Sample)]
    )
    (folder / "bright.mp4").write_bytes(b"gone")
    with pytest.raises(UserError, match="can no longer be read"):
        reader(kept[0], 0)


def test_samples_are_the_same_again_and_others_elsewhere(
    processor: VideoChatProcessor, media: Path, tmp_path: Path
) -> None:
    file = write_list(tmp_path / "list.json", captions())
    (video, *_) = [sample for sample in load_samples([file], media, 1) if isinstance(sample, Sample)]
    reader = Reader(processor, VideoChatAlignConfig(), media)
    (pixels, text), (again, same) = reader(video, 5), reader(video, 5)
    assert torch.equal(pixels, again) and torch.equal(text.input_ids, same.input_ids)
    assert pixels.shape == (4, 3, SIDE, SIDE)
    others = [reader(video, place)[1].input_ids.tolist() for place in range(12)]
    assert len({tuple(ids) for ids in others}) > 3  # other requests


def test_nothing_is_mirrored_unless_it_is_asked_for(
    processor: VideoChatProcessor, media: Path, tmp_path: Path
) -> None:
    half = np.zeros((64, 96, 3), np.uint8)
    half[:, :48] = 255
    Image.fromarray(half).save(media / "half.png")
    file = write_list(tmp_path / "list.json", [{"image": "half.png", "caption": "it is bright"}])
    (sample,) = [one for one in load_samples([file], media, 1) if isinstance(one, Sample)]

    def left_is_bright(place: int, **settings_: float) -> bool:
        config = VideoChatAlignConfig.model_validate(settings_)
        pixels, _ = Reader(processor, config, media)(sample, place)
        return bool(pixels[..., : SIDE // 2].mean() > pixels[..., SIDE // 2 :].mean())

    assert all(left_is_bright(place) for place in range(20))
    assert not any(left_is_bright(place, flip_share=1) for place in range(5))
    assert all(left_is_bright(place, **ALL_SHOWN) for place in range(3))


@settings(max_examples=60)
@given(count=st.integers(1, 200), parts=st.integers(1, 16), seed=st.integers(0, 99))
def test_frames_are_drawn_one_from_each_part_in_order(count: int, parts: int, seed: int) -> None:
    drawn = one_of_each_part(count, parts=parts, random=np.random.default_rng(seed))
    assert len(drawn) == parts and drawn == sorted(drawn) and drawn[0] >= 0 and drawn[-1] < count
    for number, frame in enumerate(drawn):
        assert int(count * number / parts) <= frame <= count * (number + 1) / parts


@settings(max_examples=60)
@given(
    width=st.integers(8, 2000),
    height=st.integers(8, 2000),
    share=st.floats(0.1, 1),
    seed=st.integers(0, 99),
)
def test_a_crop_lies_in_the_picture(width: int, height: int, share: float, seed: int) -> None:
    left, top, right, bottom = crop_box(width, height, share, np.random.default_rng(seed))
    assert 0 <= left < right <= width + 1e-6 and 0 <= top < bottom <= height + 1e-6


def test_the_stages_are_the_released_ones() -> None:
    first, second = VideoChatAlignConfig(), VideoChatInstructConfig()
    assert (first.frames, first.lr, first.epochs, first.warmup_epochs, first.min_lr_share) == (
        4,
        1e-4,
        1,
        0.2,
        0.01,
    )
    assert (second.frames, second.lr, second.epochs, second.warmup_epochs, second.min_lr_share) == (
        8,
        2e-5,
        3,
        0.6,
        0.25,
    )
    assert (first.batch_size, second.batch_size, first.max_text_tokens, second.max_text_tokens) == (
        1024,
        32,
        32,
        512,
    )
    assert first.flip_share == second.flip_share == 0
