"""The trained model as a whole checkpoint: LoRA merged, in the layout servers and trainers read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict

from share4video.config import TrainConfig
from share4video.errors import UserError
from share4video.models.family import family_of_type

SHARD_SIZE = "5GB"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# What belongs to a model beside its weights and its configuration: copied from the base as it is.
COMPANIONS = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "share4video.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
)


def export_checkpoint(
    peft_model: Any, base: Path, target: Path, config: TrainConfig, *, chat_template: str | None = None
) -> None:
    """Merge LoRA into the model and write it whole to the folder ``target``, in ``config.save_precision``.

    Args:
        chat_template: the one it was trained with, to be asked with; None for that of the base.

    Raises:
        UserError: a weight is not finite, or does not fit the precision.
    """
    dtype = DTYPES[config.save_precision]
    model = peft_model.merge_and_unload()
    tied = bool(model.config.tie_word_embeddings)
    family = family_of_type(model.config.model_type)
    weights = {}
    for name, tensor in sorted(model.state_dict().items()):
        if tied and name == "lm_head.weight":
            continue
        weights[family.disk_name(name)] = _cast(name, tensor, dtype, config.save_precision)
    target.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(weights, target, max_shard_size=SHARD_SIZE, metadata={"format": "pt"})
    model.config.use_cache = True  # the Trainer turns it off for itself
    model.config.dtype = dtype
    model.config.save_pretrained(target)
    model.generation_config.save_pretrained(target)
    for name in COMPANIONS:
        if (base / name).is_file():
            shutil.copyfile(base / name, target / name)
    if chat_template is not None:
        (target / "chat_template.json").unlink(missing_ok=True)
        (target / "chat_template.jinja").write_text(chat_template, encoding="utf-8")


def _cast(name: str, tensor: torch.Tensor, dtype: torch.dtype, precision: str) -> torch.Tensor:
    cast = tensor.detach().to("cpu", dtype).contiguous()
    if cast.untyped_storage().nbytes() != cast.nbytes:  # a view into DeepSpeed's flat buffer
        cast = cast.clone()
    if not bool(torch.isfinite(cast).all()):
        raise UserError(
            f"the trained weight {name} is not finite in {precision}",
            where="train.save_precision",
            fix="save in bf16, or lower the rates if the weights themselves diverged",
        )
    return cast
