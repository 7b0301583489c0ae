"""Samples as token ids: as the library itself would make them, and nothing cut."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from share4video.dataset.messages import Message
from share4video.errors import UserError
from share4video.models.llava_next.processor import encode_image, encode_text, load_processor
from share4video.training.samples import Pictures, Sample, tokenize

MakeSamples = Callable[[int, int], list[Sample]]


def _reference(processor: Any, sample: Sample) -> Any:
    """What the processor makes of the whole sample in one call."""
    image = Image.open(sample.image).convert("RGB") if sample.image else None
    turns = []
    for message in sample.messages:
        text = message.content.removeprefix("<image>\n")
        parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if text != message.content:
            parts.insert(0, {"type": "image", "image": image})
        turns.append({"role": message.role, "content": parts})
    return processor.apply_chat_template(
        turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
    )


def test_the_8bs_tiles_are_those_of_the_released_code(processor: Any, data_root: Path) -> None:
    """The layout and the number of visual tokens of pictures of many shapes, in the 8B's configuration."""
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    images = LlavaNextImageProcessor(
        size={"shortest_edge": 336},
        crop_size={"height": 336, "width": 336},
        image_grid_pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    )
    large = LlavaNextProcessor(
        image_processor=images,
        tokenizer=processor.tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=processor.chat_template,
    )
    for case in json.loads((data_root / "golden" / "composition.json").read_text())["anyres_336"]:
        width, height = case["image_wh"]
        encoded = encode_text(large, [Message("user", "<image>\n?")], (height, width))
        assert int((encoded.input_ids == large.image_token_id).sum()) == case["tokens"]
        tiles = encode_image(large, Image.new("RGB", (width, height)))
        assert (len(tiles) - 1) * 336 * 336 == case["best"][0] * case["best"][1]


@pytest.mark.parametrize("size", [(200, 90), (96, 96), (640, 480), (100, 600), (333, 77)])
def test_text_and_picture_apart_are_what_they_are_together(
    processor: Any, tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "picture.png"
    Image.effect_noise(size, 80).convert("RGB").save(path)
    turns = (
        Message("system", "Watch."),
        Message("user", "<image>\nWhat is it?"),
        Message("assistant", "A small red square."),
        Message("user", "And now?"),
        Message("assistant", "It moves left."),
    )
    expected = _reference(processor, Sample("s", path, turns))
    encoded = encode_text(processor, turns, (size[1], size[0]))
    assert torch.equal(encoded.input_ids, expected["input_ids"][0])
    assert torch.equal(encoded.supervised, torch.as_tensor(expected["assistant_masks"])[0].bool())
    with Image.open(path) as image:
        assert torch.equal(encode_image(processor, image.convert("RGB")), expected["pixel_values"][0])
    said = processor.tokenizer.decode(encoded.input_ids[encoded.supervised])
    assert said == "A small red square.<|end|>It moves left.<|end|>"


def test_text_alone_is_a_sample_too(processor: Any) -> None:
    sample = Sample("s", None, (Message("user", "Hello."), Message("assistant", "Good day.")))
    ((kept,), rejected) = tokenize(processor, [sample], 100)
    assert not rejected
    assert torch.equal(kept.input_ids, _reference(processor, sample)["input_ids"][0])


def test_what_does_not_fit_is_rejected_whole(processor: Any, make_samples: MakeSamples) -> None:
    samples = make_samples(1, 3)
    lengths = [kept.length for kept in tokenize(processor, samples, 10_000)[0]]
    kept, (rejected,) = tokenize(processor, samples, lengths[1])
    assert [sample.sample_id for sample in kept] == ["0-0", "0-1"]
    assert (rejected.sample_id, rejected.reason) == ("0-2", "too_long")
    assert (rejected.measured, rejected.bound) == (lengths[2], lengths[1])


def test_a_picture_that_cannot_be_read_is_a_reject(
    processor: Any, make_samples: MakeSamples, tmp_path: Path
) -> None:
    (sample,) = make_samples(1, 1)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    samples = [replace(sample, image=broken), replace(sample, image=tmp_path / "missing.jpg"), sample]
    kept, rejected = tokenize(processor, samples, 1000)
    assert len(kept) == 1
    assert [sample.reason for sample in rejected] == ["bad_image", "bad_image"]


def test_an_answer_that_is_not_marked_is_a_reject(
    processor: Any, make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmarked = processor.chat_template.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    monkeypatch.setattr(processor, "chat_template", unmarked)
    kept, rejected = tokenize(processor, make_samples(1, 1), 1000)
    assert not kept
    assert [sample.reason for sample in rejected] == ["no_supervised_tokens"]


def test_pictures_are_processed_once_while_there_is_room(processor: Any, make_samples: MakeSamples) -> None:
    paths = [sample.image for sample in make_samples(2, 1) if sample.image]
    one = Pictures(processor, 0)(paths[0])
    size = one.numel() * one.element_size()
    pictures = Pictures(processor, size)
    pictures.load(paths)
    assert [pictures(path) is pictures(path) for path in paths] == [True, False]  # the second is larger
    assert torch.equal(pictures(paths[0]), one)


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("processor_config.json", None, "no LLaVA-NeXT processor"),
        ("chat_template.jinja", None, "no chat template"),
        ("chat_template.jinja", "{{ messages }}", "does not mark the answers"),
        ("chat_template.jinja", "{% if %}", "not valid Jinja"),
    ],
)
def test_a_folder_that_cannot_be_trained_from_is_the_users_error(
    base: Path, tmp_path: Path, file: str, text: str | None, complaint: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=complaint):
        load_processor(folder)
