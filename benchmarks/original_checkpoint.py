"""Checkpoints in the layout of the original ``llava_llama`` code, with random weights and of any size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

# As in Llama 3; the fitted part of the vocabulary comes before them.
CONTROL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<pad>",
)
TOWER = "model.vision_tower.vision_tower.vision_model"


@dataclass(frozen=True)
class Size:
    """Widths and depths; those of ShareGPT4Video-8B, but for ``layers`` (32) where nothing else is said."""

    width: int = 4096
    feed_forward: int = 14336
    layers: int = 2
    heads: int = 32
    key_value_heads: int = 8
    rows: int = 128257
    tower_width: int = 1024
    tower_feed_forward: int = 4096
    tower_layers: int = 24
    side: int = 336
    patch: int = 14

    @property
    def grid(self) -> int:
        return self.side // self.patch


def shapes(size: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of every weight."""
    width, tower = size.width, size.tower_width
    key_value = width // size.heads * size.key_value_heads
    yield "model.embed_tokens.weight", (size.rows, width)
    for layer in range(size.layers):
        here = f"model.layers.{layer}"
        yield f"{here}.self_attn.q_proj.weight", (width, width)
        yield f"{here}.self_attn.k_proj.weight", (key_value, width)
        yield f"{here}.self_attn.v_proj.weight", (key_value, width)
        yield f"{here}.self_attn.o_proj.weight", (width, width)
        yield f"{here}.mlp.gate_proj.weight", (size.feed_forward, width)
        yield f"{here}.mlp.up_proj.weight", (size.feed_forward, width)
        yield f"{here}.mlp.down_proj.weight", (width, size.feed_forward)
        yield f"{here}.input_layernorm.weight", (width,)
        yield f"{here}.post_attention_layernorm.weight", (width,)
    yield "model.norm.weight", (width,)
    yield "model.image_newline", (width,)
    for number, inward in ((0, tower), (2, width)):
        yield f"model.mm_projector.{number}.weight", (width, inward)
        yield f"model.mm_projector.{number}.bias", (width,)
    yield f"{TOWER}.embeddings.class_embedding", (tower,)
    yield f"{TOWER}.embeddings.patch_embedding.weight", (tower, 3, size.patch, size.patch)
    yield f"{TOWER}.embeddings.position_embedding.weight", (size.grid**2 + 1, tower)
    for name in ("pre_layrnorm", "post_layernorm"):
        yield f"{TOWER}.{name}.weight", (tower,)
        yield f"{TOWER}.{name}.bias", (tower,)
    for layer in range(size.tower_layers):
        here = f"{TOWER}.encoder.layers.{layer}"
        for part, inward, outward in (
            ("self_attn.q_proj", tower, tower),
            ("self_attn.k_proj", tower, tower),
            ("self_attn.v_proj", tower, tower),
            ("self_attn.out_proj", tower, tower),
            ("mlp.fc1", tower, size.tower_feed_forward),
            ("mlp.fc2", size.tower_feed_forward, tower),
        ):
            yield f"{here}.{part}.weight", (outward, inward)
            yield f"{here}.{part}.bias", (outward,)
        for part in ("layer_norm1", "layer_norm2"):
            yield f"{here}.{part}.weight", (tower,)
            yield f"{here}.{part}.bias", (tower,)
    yield "lm_head.weight", (size.rows, width)


def random_weights(size: Size, dtype: torch.dtype, seed: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every weight, drawn small, norms near one."""
    generator = torch.Generator().manual_seed(seed)
    for name, shape in shapes(size):
        values = torch.randn(shape, generator=generator, dtype=torch.float32).mul_(0.1).to(dtype)
        yield name, values + 1 if "norm" in name and name.endswith("weight") else values


def config(size: Size, dtype: torch.dtype) -> dict[str, Any]:
    """Return ``config.json``; the tower's address is of a machine that nobody else has."""
    end = size.rows - len(CONTROL_TOKENS)
    side = size.side
    return {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "attention_bias": False,
        "bos_token_id": end,
        "eos_token_id": end + 1,
        "pad_token_id": end + 5,
        "hidden_act": "silu",
        "hidden_size": size.width,
        "intermediate_size": size.feed_forward,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.key_value_heads,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "vocab_size": size.rows,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "transformers_version": "4.37.2",
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": [
            [side, 2 * side],
            [2 * side, side],
            [2 * side, 2 * side],
            [3 * side, side],
            [side, 3 * side],
        ],
        "mm_hidden_size": size.tower_width,
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "/mnt/cluster/pretrained/vision_encoder/clip-vit-large-patch14-336",
        "tokenizer_model_max_length": 6144,
        "tokenizer_padding_side": "right",
        "unfreeze_mm_vision_tower": True,
    }


def write_tokenizer(folder: Path, rows: int, *, adds_bos: bool = True, pad: bool = True) -> None:
    """Write a byte-level tokenizer with as many tokens as ``rows``, Llama 3's control tokens at the end.

    Args:
        adds_bos: whether it puts a BOS in front of every text, as Llama 3's does.
        pad: whether it names its pad token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    for number in range(len(letters), rows - len(CONTROL_TOKENS)):
        vocabulary[f"never-{number}"] = number
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(CONTROL_TOKENS))
    bos = CONTROL_TOKENS[0]
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, rows - len(CONTROL_TOKENS))]
        )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=CONTROL_TOKENS[1],
        pad_token=CONTROL_TOKENS[5] if pad else None,
    ).save_pretrained(folder)


def write_checkpoint(
    folder: Path, size: Size, *, dtype: torch.dtype = torch.bfloat16, max_shard_bytes: int = 5 * 10**9
) -> None:
    """Write a checkpoint as ``save_pretrained`` of the original code leaves it, the tokenizer included."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[list[str]] = []
    held: dict[str, torch.Tensor] = {}

    def flush() -> None:
        save_file(held, folder / f"part-{len(files)}.safetensors", metadata={"format": "pt"})
        files.append(list(held))
        held.clear()

    for name, tensor in random_weights(size, dtype):
        if held and sum(t.nbytes for t in held.values()) + tensor.nbytes > max_shard_bytes:
            flush()
        held[name] = tensor
    flush()
    index: dict[str, str] = {}
    for number, names in enumerate(files):
        file = f"model-{number + 1:05d}-of-{len(files):05d}.safetensors"
        file = file if len(files) > 1 else "model.safetensors"
        (folder / f"part-{number}.safetensors").rename(folder / file)
        index |= dict.fromkeys(names, file)
    if len(files) > 1:
        text = json.dumps({"metadata": {}, "weight_map": index})
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config(size, dtype)), encoding="utf-8")
    write_tokenizer(folder, size.rows)
