"""What is trained, at which rate: LoRA on the language model, projector and vision tower as they are.

The reference attaches LoRA by name suffix, which in a released variant also hit the vision tower; here the
modules are named by a pattern over their whole path. Embeddings, head and image newline stay frozen, as in
the reference.
"""

from __future__ import annotations

import re
from typing import Any

from share4video.config import TrainConfig

LORA_MODULES = r"model\.language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
# LLaVA-NeXT has one tower, Video-LLaVA one for pictures and one for videos.
_TOWERS = (".vision_tower.", ".image_tower.", ".video_tower.")
_TOWER_LAYER = re.compile(r"\.encoder\.layers\.(\d+)\.")


def attach_lora(model: Any, config: TrainConfig) -> Any:
    """Return ``model`` with LoRA on its language model, and the parts that are trained whole unfrozen.

    Trained weights are held in float32 whatever the frozen ones are: a step of 2e-6 is lost in bfloat16. A
    part that is trained is held so whole, since one module does not take two types.
    """
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=LORA_MODULES,
    )
    peft_model = get_peft_model(model, lora)
    used_layers = _used_tower_layers(model.config)
    rates = _rates(config)
    for name, parameter in peft_model.named_parameters():
        part = part_of(name)
        if part is None or rates[part] == 0:
            continue
        parameter.data = parameter.data.float()
        parameter.requires_grad = part != "tower" or _is_used(name, used_layers)
    return peft_model


def parameter_groups(model: Any, config: TrainConfig) -> list[dict[str, Any]]:
    """Return the optimizer's groups with their rates; no weight decay, as in the reference.

    Raises:
        RuntimeError: a trainable parameter belongs to no part.
    """
    rates = _rates(config)
    members: dict[str, list[Any]] = {part: [] for part in rates}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = part_of(name)
            if part is None:
                raise RuntimeError(f"{name} is trained but has no learning rate")
            members[part].append(parameter)
    return [
        {"name": part, "params": parameters, "lr": rates[part], "weight_decay": 0.0}
        for part, parameters in members.items()
        if parameters
    ]


def part_of(name: str) -> str | None:
    """Return ``language``, ``projector``, ``tower``, or None for what is never trained."""
    if "lora_" in name:
        return "language"
    if ".multi_modal_projector." in name:
        return "projector"
    if any(tower in name for tower in _TOWERS):
        return "tower"
    return None


def _rates(config: TrainConfig) -> dict[str, float]:
    return {"language": config.lr_language, "projector": config.lr_projector, "tower": config.lr_tower}


def _used_tower_layers(config: Any) -> int:
    """Return how many of the tower's layers lie below the features that are read."""
    count = int(config.vision_config.num_hidden_layers)
    layers = config.vision_feature_layer
    states = [layers] if isinstance(layers, int) else list(layers)
    return max(state if state >= 0 else count + 1 + state for state in states)


def _is_used(name: str, used_layers: int) -> bool:
    """Whether the loss reaches a tower weight; none reaches what lies above the features."""
    layer = _TOWER_LAYER.search(name)
    if layer is not None:
        return int(layer.group(1)) < used_layers
    return ".post_layernorm." not in name
