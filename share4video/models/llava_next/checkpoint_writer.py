"""Weights into safetensors shards with an index, a block at a time: no tensor is ever whole in memory.

The safetensors library writes a file from tensors that are all in memory. Here the header, which follows from
names, types and shapes alone, is written first and the values after it; the library reads each shard's header
back before the shard counts.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import safe_open

from share4video.errors import UserError
from share4video.models.llava_next.checkpoint_reader import LazyTensor, blocks, byte_size

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Entry:
    """A tensor to write: under which name, of what type, and where its values come from."""

    name: str
    source: LazyTensor
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return byte_size(self.source.shape, self.dtype)


@dataclass(frozen=True)
class Shard:
    """A file to write."""

    file: str
    entries: tuple[Entry, ...]

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.entries)


def plan_shards(entries: Sequence[Entry], max_shard_bytes: int) -> list[Shard]:
    """Divide the tensors, in their order, into files of at most ``max_shard_bytes``.

    A tensor that is larger than that has a file of its own.
    """
    groups: list[list[Entry]] = [[]]
    filled = 0
    for entry in entries:
        if groups[-1] and filled + entry.bytes > max_shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(entry)
        filled += entry.bytes
    if len(groups) == 1:
        return [Shard(WHOLE, tuple(groups[0]))]
    count = len(groups)
    return [
        Shard(f"model-{number:05d}-of-{count:05d}.safetensors", tuple(group))
        for number, group in enumerate(groups, start=1)
    ]


def index_of(shards: Sequence[Shard]) -> bytes:
    """Return the text of the index."""
    files = {entry.name: shard.file for shard in shards for entry in shard.entries}
    total = {"total_size": sum(shard.bytes for shard in shards)}
    text = json.dumps({"metadata": total, "weight_map": dict(sorted(files.items()))}, indent=2)
    return (text + "\n").encode()


def write_shard(shard: Shard, folder: Path, written: Callable[[int], None]) -> Path:
    """Write a shard to ``folder`` and return its path.

    Args:
        written: called with the bytes of each block.

    Raises:
        UserError: a value is not finite in the type it is to be written in, or the disk is full.
    """
    path = folder / shard.file
    try:
        with path.open("wb") as file:
            _write_header(shard, file)
            for entry in shard.entries:
                for block in blocks(entry.source):
                    values = _cast(entry, block)
                    file.write(values.contiguous().reshape(-1).view(torch.uint8).numpy().data)
                    written(values.nbytes)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"cannot write the weights: {error.strerror}", where=str(path), fix="make room on that disk"
        ) from error
    with safe_open(path, framework="pt") as opened:
        assert set(opened.keys()) == {entry.name for entry in shard.entries}
    return path


def _write_header(shard: Shard, file: BinaryIO) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in shard.entries:
        end = offset + entry.bytes
        header[entry.name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.source.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # values begin at a multiple of 8 bytes
    file.write(len(text).to_bytes(8, "little") + text)


def _all_finite(values: torch.Tensor) -> bool:
    """Whether there is no NaN, which both extremes would then be, and no infinity."""
    if values.numel() == 0:
        return True
    least, most = torch.aminmax(values)  # 30 times as fast as isfinite on 16-bit types
    return math.isfinite(float(least)) and math.isfinite(float(most))


def _cast(entry: Entry, block: torch.Tensor) -> torch.Tensor:
    values = block.detach().to(entry.dtype)
    if not _all_finite(values):
        if _all_finite(block):
            raise UserError(
                f"the weight {entry.name} does not fit {entry.dtype}".replace("torch.", ""),
                where="--dtype",
                fix="keep the checkpoint's own type, or take bfloat16 or float32",
            )
        raise UserError(
            f"the weight {entry.name} holds values that are no numbers",
            where=str(getattr(entry.source, "file", "")),
            fix="fetch the checkpoint again",
        )
    return values
