"""LoRA folders of the released training script, merged into their base as it is read.

Such a folder holds ``adapter_config.json``, ``adapter_model.safetensors`` or ``.bin`` with the low-rank
pairs, ``non_lora_trainables.bin`` with what was trained whole (projector, vision tower), and the
``config.json`` of the model. W + (alpha / r) B A is added in float32 and rounded once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from share4video.errors import UserError
from share4video.models.llava_next.checkpoint_reader import (
    LazyTensor,
    StoredTensor,
    name_some,
    open_weights,
)
from share4video.models.llava_next.config import read_json

CONFIG, TRAINED_WHOLE = "adapter_config.json", "non_lora_trainables"
_PAIR = re.compile(r"^(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")
_WRAPPED = re.compile(r"^(?:base_model\.model\.)?(?P<name>.+)$")
_KEPT_COPY = re.compile(r"\.modules_to_save(?:\.default)?\.")


class AdapterConfig(BaseModel):
    """What of ``adapter_config.json`` decides the merge; forms that merge otherwise are refused."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    peft_type: str = Field(pattern="^LORA$")
    r: int = Field(gt=0)
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}

    @property
    def scaling(self) -> float:
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)

    def refused(self) -> str:
        """Return the key that asks for something else than W + (alpha / r) B A; '' where none does."""
        asked = [
            key
            for key in ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern")
            if getattr(self, key)
        ]
        return asked[0] if asked else ""


@dataclass(frozen=True)
class MergedTensor:
    """A weight with its low-rank change added; both sides of the pair are read once."""

    base: LazyTensor
    a: StoredTensor
    b: StoredTensor
    scaling: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return rows, in the base's type."""
        a, b = _pair(self.a, self.b)
        change = b[start:stop] @ a
        return change.mul_(self.scaling).add_(self.base.rows(start, stop)).to(self.dtype)


@lru_cache(maxsize=1)  # a weight's blocks are read one after another
def _pair(a: StoredTensor, b: StoredTensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both sides of a pair in float32."""
    return a.rows(0, a.shape[0]).float(), b.rows(0, b.shape[0]).float()


def forget_pair() -> None:
    """Let go of the pair read last."""
    _pair.cache_clear()


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds LoRA weights and not a whole model."""
    return (folder / CONFIG).is_file()


def merge(folder: Path, base: Mapping[str, StoredTensor], shown: str) -> dict[str, LazyTensor]:
    """Return the base's tensors, in its order, with the adapter's changes on them; nothing is read yet.

    Args:
        shown: the adapter's folder as a person knows it.

    Raises:
        UserError: the adapter is of another form, lacks half a pair, or does not fit the base.
    """
    config = _read_config(folder, shown)
    pairs: dict[str, dict[str, StoredTensor]] = {}
    merged: dict[str, LazyTensor] = dict(base)
    whole = dict(open_weights(folder, "adapter_model"))
    if (folder / f"{TRAINED_WHOLE}.bin").is_file() or (folder / f"{TRAINED_WHOLE}.safetensors").is_file():
        whole |= open_weights(folder, TRAINED_WHOLE)
    for key, tensor in whole.items():
        name = _plain(key)
        if found := _PAIR.match(name):
            pairs.setdefault(found["module"], {})[found["side"]] = tensor
        elif "lora_" in name:
            raise UserError(f"cannot merge {key}", where=shown, fix="only LoRA of linear layers is merged")
        else:
            merged[name] = tensor
    wrong = []
    for module, sides in sorted(pairs.items()):
        target, a, b = merged.get(f"{module}.weight"), sides.get("A"), sides.get("B")
        if (
            target is None
            or a is None
            or b is None
            or (b.shape[0], a.shape[1]) != target.shape
            or not a.shape[0] == b.shape[1] == config.r
        ):
            wrong.append(module)
        else:
            merged[f"{module}.weight"] = MergedTensor(target, a, b, config.scaling)
    if wrong:
        raise UserError(
            f"{len(wrong)} low-rank changes do not fit the base: {name_some(wrong)}",
            where=shown,
            fix="name the base it was trained from",
        )
    return merged


def _read_config(folder: Path, shown: str) -> AdapterConfig:
    try:
        config = AdapterConfig.model_validate(read_json(folder / CONFIG))
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(
            f"the adapter's {key} is missing or not LoRA's",
            where=f"{shown}/{CONFIG}",
            fix="name a LoRA folder",
        ) from None
    if key := config.refused():
        raise UserError(
            f"the adapter sets {key}, which is not merged here",
            where=f"{shown}/{CONFIG}",
            fix="merge it with peft first, and convert the whole model",
        )
    return config


def _plain(key: str) -> str:
    """Return the name in the base of what peft, wrapping the model, calls ``key``."""
    found = _WRAPPED.match(key)
    name = found["name"] if found else key
    name = name.removeprefix("model.") if name.startswith("model.model.") else name
    return _KEPT_COPY.sub(".", name).replace(".base_layer.", ".")
