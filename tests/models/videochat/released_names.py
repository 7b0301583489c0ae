"""VideoChat's weights under the names of its released files: the way back from the adapter's."""

from __future__ import annotations

import torch

from share4video.models.videochat.model import VideoChatForConditionalGeneration

BACK = (
    ("vision_tower.embeddings.class_embedding", "visual_encoder.cls_token"),
    ("vision_tower.embeddings.position_embedding", "visual_encoder.pos_embed"),
    ("vision_tower.embeddings.patch_embedding", "visual_encoder.patch_embed.proj"),
    ("vision_tower.encoder.layers", "visual_encoder.blocks"),
    ("layer_norm", "norm"),
    ("self_attn.projection", "attn.proj"),
    ("self_attn", "attn"),
    ("gmhra_token", "visual_encoder.gmhra_cls_token"),
    ("gmhra.", "visual_encoder.gmhra."),
    ("qformer.layernorm", "Qformer.bert.embeddings.LayerNorm"),
    ("qformer.", "Qformer.bert."),
    ("attention.attention", "attention.self"),
)


def released_weights(model: VideoChatForConditionalGeneration) -> dict[str, torch.Tensor]:
    """Return every weight of a model but the language model's under its released name."""
    released = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("language_model."):
            continue
        for ours, theirs in BACK:
            if name.startswith(ours) or not ours.endswith("."):
                name = name.replace(ours, theirs)
        if name.endswith("qkv.bias"):
            query, _, value = tensor.chunk(3)
            released[name.replace("qkv.bias", "q_bias")] = query.clone()
            released[name.replace("qkv.bias", "v_bias")] = value.clone()
        else:
            released[name] = tensor
    return released
