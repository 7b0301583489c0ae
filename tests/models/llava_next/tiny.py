"""A tiny original ``llava_llama`` checkpoint made from nothing: sharded or whole, safetensors or pickled."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.original_checkpoint import Size, write_checkpoint

# The tower is 64 wide, so that its one head can be told from its shapes.
TINY = Size(
    width=32,
    feed_forward=64,
    layers=2,
    heads=4,
    key_value_heads=2,
    rows=300,
    tower_width=64,
    tower_feed_forward=96,
    tower_layers=3,
    side=28,
    patch=7,
)


def write_original(
    folder: Path, *, size: Size = TINY, dtype: torch.dtype = torch.float32, max_shard_bytes: int = 5 * 10**9
) -> Path:
    """Write the checkpoint with its tokenizer and return its folder."""
    write_checkpoint(folder, size, dtype=dtype, max_shard_bytes=max_shard_bytes)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint, original or converted."""
    return {
        name: value
        for file in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def pickle_weights(folder: Path, *, newer: bool = True) -> None:
    """Replace the checkpoint's safetensors by ``torch.save`` files, sharded as they are.

    Args:
        newer: as zip files, which can be mapped; otherwise in the form of PyTorch before 1.6.
    """
    renamed = {}
    for file in sorted(folder.glob("model*.safetensors")):
        target = file.with_name(f"pytorch_{file.stem}.bin")
        torch.save(load_file(file), target, _use_new_zipfile_serialization=newer)
        renamed[file.name] = target.name
        file.unlink()
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        held = json.loads(index.read_text())["weight_map"]
        text = json.dumps({"weight_map": {name: renamed[file] for name, file in held.items()}})
        (folder / "pytorch_model.bin.index.json").write_text(text)
        index.unlink()


def edit_config(folder: Path, **values: object) -> None:
    """Change keys of ``config.json``; None removes one."""
    path = folder / "config.json"
    found = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))
