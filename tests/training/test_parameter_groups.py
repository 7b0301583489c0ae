"""What is trained, at which rate, and that the loss reaches all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from share4video.training.packing import Collator, pack
from share4video.training.parameter_groups import attach_lora, parameter_groups, part_of
from share4video.training.samples import Pictures, Sample, tokenize
from tests.training.conftest import SMALL


def _load(base: Path, **changes: Any) -> Any:
    from transformers import LlavaNextForConditionalGeneration

    return LlavaNextForConditionalGeneration.from_pretrained(base, **changes)


def test_lora_is_on_the_language_model_alone(base: Path) -> None:
    model = attach_lora(_load(base), SMALL)
    wrapped = {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
    layers = model.config.text_config.num_hidden_layers
    assert len(wrapped) == 7 * layers
    assert all(".language_model.layers." in name for name in wrapped)


def test_every_part_has_its_own_rate_and_the_rest_is_frozen(base: Path) -> None:
    model = attach_lora(_load(base), SMALL)
    groups = {group["name"]: group for group in parameter_groups(model, SMALL)}
    assert {name: group["lr"] for name, group in groups.items()} == {
        "language": SMALL.lr_language,
        "projector": SMALL.lr_projector,
        "tower": SMALL.lr_tower,
    }
    assert {group["weight_decay"] for group in groups.values()} == {0.0}
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    for part in ("embed_tokens", "image_newline", "language_model.norm"):
        assert any(part in name for name in frozen)
    assert all(part_of(name) != "projector" for name in frozen)


@pytest.mark.parametrize(("part", "rate"), [("projector", "lr_projector"), ("tower", "lr_tower")])
def test_a_rate_of_zero_freezes_its_part(base: Path, part: str, rate: str) -> None:
    config = SMALL.model_copy(update={rate: 0.0})
    model = attach_lora(_load(base), config)
    assert part not in {group["name"] for group in parameter_groups(model, config)}


@pytest.mark.parametrize("feature_layer", [-1, -2])
def test_the_loss_reaches_every_weight_that_is_trained(
    base: Path, processor: Any, make_samples: Callable[[int, int], list[Sample]], feature_layer: int
) -> None:
    loaded = _load(base)
    loaded.config.vision_feature_layer = feature_layer
    model = attach_lora(loaded, SMALL)
    samples, _ = tokenize(processor, make_samples(1, 2), 4096)
    packs = pack(
        samples,
        image_token_id=processor.image_token_id,
        per_pack=2,
        max_length=4096,
        weighting="token",
    )
    batch = Collator(0, Pictures(processor, 1 << 30))(packs)
    del batch["weights"]
    model(**batch, use_cache=False).loss.backward()
    waiting = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not waiting
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_trained_weights_are_float32_whatever_the_frozen_ones_are(base: Path) -> None:
    model = attach_lora(_load(base, dtype=torch.bfloat16), SMALL)
    for name, parameter in model.named_parameters():
        trained_part = part_of(name) is not None
        assert parameter.dtype == (torch.float32 if trained_part else torch.bfloat16), name


def test_a_weight_without_a_rate_is_a_mistake(base: Path) -> None:
    model = attach_lora(_load(base), SMALL)
    model.get_input_embeddings().weight.requires_grad = True
    with pytest.raises(RuntimeError, match="no learning rate"):
        parameter_groups(model, SMALL)
