"""Released weights under our names compute what the released code computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from share4video.models.videochat.config import VideoChatConfig
from share4video.models.videochat.model import VideoChatForConditionalGeneration
from share4video.models.videochat.state_dict_adapter import AdapterError, from_released
from tests.models.videochat.released_names import released_weights
from tests.models.videochat.tiny import tiny_config

# The released tower (eva_vit.py at 2e83d6e, its parts that the released configuration uses) with 4 layers,
# 3 aggregators and random weights under their released names, run in float32 on a CPU on two videos of three
# frames, with ln_vision behind it; and the same with the first two frames of each exchanged.
GOLDEN = Path(__file__).with_name("golden") / "released_tower.npz"
LAYERS, AGGREGATORS = 4, 3
UNMAPPED = ("qformer.", "query_tokens", "extra_query_tokens", "llama_proj.", "language_model.")


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}


@pytest.fixture(scope="module")
def released(golden: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in golden.items() if "." in name}


def _model() -> VideoChatForConditionalGeneration:
    vision = {
        "hidden_size": 16,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 7,
    }
    config = tiny_config(vision_config=vision, gmhra_layers=AGGREGATORS)
    return VideoChatForConditionalGeneration(config).eval()


def _loaded(released: dict[str, torch.Tensor]) -> VideoChatForConditionalGeneration:
    model = _model()
    mapped = from_released(released, tower_layers=LAYERS)
    report = model.load_state_dict(mapped, strict=False)
    assert not report.unexpected_keys
    assert all(name.startswith(UNMAPPED) for name in report.missing_keys)
    return model


@torch.inference_mode()
def test_tower_and_aggregators_give_the_released_codes_tokens(
    golden: dict[str, torch.Tensor], released: dict[str, torch.Tensor]
) -> None:
    model = _loaded(released)
    torch.testing.assert_close(model.tower_tokens(golden["video"]), golden["tokens"], rtol=1e-4, atol=1e-5)
    swapped = model.tower_tokens(golden["video"][:, [1, 0, 2]])
    torch.testing.assert_close(swapped, golden["tokens_of_swapped"], rtol=1e-4, atol=1e-5)
    assert (swapped[:, -1] - golden["tokens"][:, -1]).abs().max() > 1e-3  # the order of the frames counts


def test_every_weight_but_the_language_models_has_its_place() -> None:
    model = _model()
    expected = {
        name: tensor.shape
        for name, tensor in model.state_dict().items()
        if not name.startswith("language_model.")
    }
    mapped = from_released(released_weights(model), tower_layers=LAYERS)
    assert {name: tensor.shape for name, tensor in mapped.items()} == expected


def test_what_the_files_hold_beside_the_model_is_passed_over() -> None:
    extra = torch.zeros(1)
    beside = {
        "visual_encoder.blocks.39.norm1.weight": extra,
        "visual_encoder.head.weight": extra,
        "visual_encoder.norm.bias": extra,
        "Qformer.cls.predictions.bias": extra,
        "Qformer.bert.embeddings.word_embeddings.weight": extra,
        "Qformer.bert.embeddings.position_ids": extra,
        "Qformer.bert.encoder.layer.3.output.dense.weight": extra,
        "t5_proj.weight": extra,
        "llama_model.model.norm.weight": extra,
    }
    assert from_released(beside, tower_layers=39) == {}


def test_evas_own_file_lacks_the_prefix(released: dict[str, torch.Tensor]) -> None:
    tower = {
        name.removeprefix("visual_encoder."): tensor
        for name, tensor in released.items()
        if name.startswith("visual_encoder.") and "gmhra" not in name
    }
    tower["patch_embed.proj.weight"] = tower["patch_embed.proj.weight"].squeeze(2)
    mapped = from_released(tower, tower_layers=LAYERS)
    whole = from_released(released, tower_layers=LAYERS)
    assert mapped.keys() == {name for name in whole if name.startswith("vision_tower.")}
    assert all(torch.equal(mapped[name], whole[name]) for name in mapped)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"visual_encoder.something.weight": torch.zeros(1)}, "1 names are not VideoChat's"),
        ({"visual_encoder.blocks.0.lmhra1.pos_embed.0.weight": torch.zeros(1)}, "local relation aggregators"),
        ({"visual_encoder.patch_embed.proj.weight": torch.zeros(4, 3, 3, 7, 7)}, "spans 3 frames"),
        ({"visual_encoder.blocks.0.attn.q_bias": torch.zeros(4)}, "a bias for q alone"),
    ],
)
def test_weights_that_are_not_as_built_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AdapterError, match=sentence):
        from_released(changes, tower_layers=LAYERS)


def test_the_released_sizes_are_the_configurations_defaults() -> None:
    config = VideoChatConfig()
    vision: Any = config.vision_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.intermediate_size) == (1408, 39, 6144)
    assert (config.gmhra_layers, config.visual_tokens, config.frames) == (8, 96, 8)
