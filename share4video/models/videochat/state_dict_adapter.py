"""Names of VideoChat's weights: from the released files' to ours.

The tower's, the aggregators', the projector's and the queries' names are those of the released code, with
which the mapping was compared (tests/models/videochat/test_state_dict_adapter.py holds values that it
computed). The Q-Former's are LAVIS's, which the released code shares, renamed as transformers' own conversion
of BLIP-2 does. No released weight file was at hand: whether one holds more than these is for
`AdapterError` to tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

_TOWER = r"^visual_encoder\.blocks\.(\d+)\."
_QFORMER = r"^Qformer\.bert\."
_RENAMED = (
    (re.compile(r"^visual_encoder\.cls_token$"), "vision_tower.embeddings.class_embedding"),
    (re.compile(r"^visual_encoder\.pos_embed$"), "vision_tower.embeddings.position_embedding"),
    (re.compile(r"^visual_encoder\.patch_embed\.proj\."), "vision_tower.embeddings.patch_embedding."),
    (re.compile(_TOWER + r"norm([12])\."), r"vision_tower.encoder.layers.\1.layer_norm\2."),
    (re.compile(_TOWER + r"attn\.qkv\."), r"vision_tower.encoder.layers.\1.self_attn.qkv."),
    (re.compile(_TOWER + r"attn\.proj\."), r"vision_tower.encoder.layers.\1.self_attn.projection."),
    (re.compile(_TOWER + r"mlp\."), r"vision_tower.encoder.layers.\1.mlp."),
    (re.compile(r"^visual_encoder\.gmhra_cls_token$"), "gmhra_token"),
    (re.compile(r"^visual_encoder\.gmhra\."), "gmhra."),
    (re.compile(_QFORMER + r"embeddings\.LayerNorm\."), "qformer.layernorm."),
    (re.compile(_QFORMER + r"(.*?attention)\.self\."), r"qformer.\1.attention."),
    (
        re.compile(_QFORMER + r"(encoder\.layer\.\d+\.(?:attention|crossattention)\.output\.)"),
        r"qformer.\1",
    ),
    (re.compile(_QFORMER + r"(encoder\.layer\.\d+\.(?:intermediate|output)_query\.)"), r"qformer.\1"),
    (re.compile(r"^(ln_vision\.|llama_proj\.|query_tokens$|extra_query_tokens$)"), r"\1"),
)
# What the files hold beside the model: the tower's head, BLIP-2's text half and its other language models.
_LEFT_OUT = re.compile(
    r"^visual_encoder\.(norm|fc_norm|head)\."
    r"|^Qformer\.cls\."
    r"|^Qformer\.bert\.embeddings\.(word_embeddings|position_embeddings|position_ids)\b"
    r"|^Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\."
    r"|^(t5_proj|t5_model|opt_proj|opt_model|vision_proj|text_proj|itm_head)\."
    r"|^temp$"
    r"|^llama_model\."
)
_BLOCK = re.compile(r"^visual_encoder\.blocks\.(\d+)\.")
_HALF_BIAS = re.compile(r"^visual_encoder\.blocks\.(\d+)\.attn\.([qv])_bias$")
_LOCAL = re.compile(r"^visual_encoder\.blocks\.\d+\.lmhra\d\.")
_EVA_ALONE = "patch_embed.proj.weight"


class AdapterError(ValueError):
    """Weights that are not VideoChat's as this package builds it; its text says which."""


def from_released(tensors: Mapping[str, torch.Tensor], *, tower_layers: int) -> dict[str, torch.Tensor]:
    """Return released weights under our names: of the whole model, or of one of the files it is made of.

    Those are EVA's tower (whose names lack ``visual_encoder.``), BLIP-2's Q-Former, and VideoChat's own file.
    The language model is not among them: it comes from its own folder, and ``llama_model.*`` is passed over.

    Args:
        tower_layers: how many of the tower's are used; BLIP-2 and VideoChat leave out EVA's last.

    Raises:
        AdapterError: there are names that VideoChat does not have, local relation aggregators (which the
            released configuration turns off, and this package does not build), or half of a bias.
    """
    if _EVA_ALONE in tensors:
        tensors = {f"visual_encoder.{name}": tensor for name, tensor in tensors.items()}
    local = [name for name in tensors if _LOCAL.match(name)]
    if local:
        raise AdapterError(
            f"the weights have {len(local)} tensors of local relation aggregators ({local[0]}, ...), "
            "which are not built"
        )
    found: dict[str, torch.Tensor] = {}
    halves: dict[str, dict[str, torch.Tensor]] = {}
    unknown: list[str] = []
    for name, tensor in tensors.items():
        block = _BLOCK.match(name)
        if _LEFT_OUT.match(name) or (block and int(block.group(1)) >= tower_layers):
            continue
        if half := _HALF_BIAS.match(name):
            halves.setdefault(half.group(1), {})[half.group(2)] = tensor
        elif (renamed := _renamed(name)) is not None:
            found[renamed] = _flattened(renamed, tensor)
        else:
            unknown.append(name)
    if unknown:
        raise AdapterError(
            f"{len(unknown)} names are not VideoChat's ({', '.join(sorted(unknown)[:3])}, ...)"
        )
    for layer, parts in halves.items():
        if parts.keys() != {"q", "v"}:
            raise AdapterError(f"tower layer {layer} has a bias for {', '.join(parts)} alone")
        whole = torch.cat([parts["q"], torch.zeros_like(parts["q"]), parts["v"]])  # keys have none
        found[f"vision_tower.encoder.layers.{layer}.self_attn.qkv.bias"] = whole
    return found


def _renamed(name: str) -> str | None:
    for pattern, replacement in _RENAMED:
        renamed, count = pattern.subn(replacement, name)
        if count:
            return renamed
    return None


def _flattened(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a patch embedding that was inflated to one frame of time without that axis."""
    if name.endswith("patch_embedding.weight") and tensor.ndim == 5:
        if tensor.shape[2] != 1:
            raise AdapterError(f"the patch embedding spans {tensor.shape[2]} frames, and 1 is built")
        return tensor.squeeze(2)
    return tensor
