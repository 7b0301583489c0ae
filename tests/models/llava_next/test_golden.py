"""The golden checkpoint, converted, against what the released code computed with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from share4video import chat
from share4video.media.compose import frame_grid
from share4video.models.llava_next.convert import convert
from share4video.models.llava_next.processor import load_processor

QUESTION = "Describe this video in detail."
IMAGE_MARK = -200  # of the released code


@pytest.fixture(scope="module")
def golden(data_root: Path) -> Path:
    return data_root / "golden" / "llava_llama_tiny"


@pytest.fixture(scope="module")
def folder(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("golden") / "model"
    convert(golden, target)
    return target


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    from transformers import LlavaNextForConditionalGeneration

    loaded, info = LlavaNextForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return loaded.eval()


def collapsed(ids: list[int], image: int) -> list[int]:
    """Return the ids with the picture's tokens as the released code writes them: one mark for all."""
    first = ids.index(image)
    count = ids.count(image)
    assert ids[first : first + count] == [image] * count
    return [*ids[:first], IMAGE_MARK, *ids[first + count :]]


@pytest.mark.parametrize("case", range(4))
def test_prompt_length_and_logits_are_the_released_codes(
    case: int, golden: Path, folder: Path, model: Any
) -> None:
    wanted = np.load(golden / f"case{case}.npz")
    processor = load_processor(folder)
    grid = frame_grid([Image.fromarray(frame) for frame in wanted["frames"]])
    assert grid.size == tuple(wanted["grid_size"])
    content = [{"type": "image", "image": grid}, {"type": "text", "text": chat.grid_question(QUESTION)}]
    batch = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        return_tensors="pt",
    )
    ids = batch["input_ids"][0].tolist()
    assert collapsed(ids, model.config.image_token_index) == wanted["input_ids"][0].tolist()
    assert len(ids) == wanted["seq_len_anyres"]
    with torch.no_grad():
        logits = model(**batch).logits[0, -1]
    known = torch.from_numpy(wanted["last_logits_anyres"])
    assert float((logits[: len(known)] - known).abs().max()) < 1e-4
    assert bool(torch.isfinite(logits).all())


def test_the_rendered_prompt_is_the_released_codes_behind_the_bos_its_tokenizer_adds(
    golden: Path, folder: Path
) -> None:
    content = [{"type": "image"}, {"type": "text", "text": chat.grid_question(QUESTION)}]
    rendered = load_processor(folder).apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    assert rendered == "<|begin_of_text|>" + (golden / "prompt.txt").read_text()


def test_the_configuration_is_the_checkpoints_own(model: Any) -> None:
    text, vision = model.config.text_config, model.config.vision_config
    assert text.rope_parameters["rope_theta"] == 500000.0
    assert (text.num_key_value_heads, text.rms_norm_eps, text.pad_token_id) == (2, 1e-5, 1)
    assert (vision.num_attention_heads, vision.hidden_size) == (4, 48)  # not what its width would suggest
    assert model.config.image_token_index == 371  # behind the last of 371 rows
    assert model.generation_config.eos_token_id == 4
