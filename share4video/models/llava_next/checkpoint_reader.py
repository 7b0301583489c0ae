"""Weights in files, by name: shapes from the headers alone, values a block of rows at a time.

Files are safetensors, or what ``torch.save`` wrote, of which nothing but tensors is unpickled. A file of
safetensors is mapped for as long as a block is read, so that no more of it stays in memory than the block.
What PyTorch before 1.6 wrote is no zip file and cannot be mapped: two such files may be in memory whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open

from share4video.errors import UserError
from share4video.models.llava_next.config import read_json

BLOCK_BYTES = 64 << 20
_DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_FETCH_AGAIN = "fetch the file again"
_MAX_NAMED = 20


class LazyTensor(Protocol):
    """A tensor that is not in memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return the rows from ``start`` up to ``stop``, (stop - start, ...)."""


def blocks(tensor: LazyTensor) -> Iterator[torch.Tensor]:
    """Yield the tensor's rows in order, about ``BLOCK_BYTES`` at a time."""
    if not tensor.shape:
        yield tensor.rows(0, 1)
        return
    row_bytes = max(1, byte_size(tensor.shape, tensor.dtype) // max(1, tensor.shape[0]))
    step = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, tensor.shape[0], step):
        yield tensor.rows(start, min(start + step, tensor.shape[0]))


def byte_size(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Return how many bytes a dense tensor takes."""
    return int(torch.Size(shape).numel()) * dtype.itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file; one without dimensions counts as a single row."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return the rows. Raises UserError where the file cannot be read any more."""
        if self.file.suffix == ".safetensors":
            try:
                with safe_open(self.file, framework="pt") as opened:
                    if not self.shape:
                        found: torch.Tensor = opened.get_tensor(self.name)
                    else:
                        found = opened.get_slice(self.name)[start:stop]
                    return found
            except (SafetensorError, OSError) as error:
                raise _damaged(self.file, error) from error
        tensor = _unpickled(self.file)[self.name]
        return tensor if not self.shape else tensor[start:stop]


Weights = Mapping[str, StoredTensor]


def open_weights(folder: Path, stem: str) -> dict[str, StoredTensor]:
    """Read the headers of ``STEM.safetensors``, ``STEM.bin`` or the shards their index names.

    Names come in the order of the files.

    Args:
        stem: ``model`` (whose pickled form is called ``pytorch_model``), ``adapter_model`` and so on.

    Raises:
        UserError: there are none, one is missing or damaged, or the index and the shards do not agree.
    """
    pickled = "pytorch_model" if stem == "model" else stem
    for name in (f"{stem}.safetensors", f"{pickled}.bin"):
        if (folder / f"{name}.index.json").is_file():
            return _open_shards(folder, folder / f"{name}.index.json")
        if (folder / name).is_file():
            return _open_file(folder / name)
    raise UserError(
        f"the folder holds no weights: neither {stem}.safetensors nor {pickled}.bin, whole or in shards",
        where=str(folder),
        fix="name the folder the training saved",
    )


def _open_shards(folder: Path, index: Path) -> dict[str, StoredTensor]:
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
        raise UserError("the weight index has no weight_map", where=str(index), fix=_FETCH_AGAIN)
    found: dict[str, StoredTensor] = {}
    for file in sorted(set(listed.values())):
        if Path(file).name != file or Path(file).suffix not in (".safetensors", ".bin"):
            raise UserError(f"the weight index names {file!r}", where=str(index), fix=_FETCH_AGAIN)
        if not (folder / file).is_file():
            raise UserError("a shard is missing", where=str(folder / file), fix="fetch it")
        held = _open_file(folder / file)
        if twice := sorted(held.keys() & found.keys()):
            raise UserError(f"two shards hold {name_some(twice)}", where=str(index), fix=_FETCH_AGAIN)
        found |= held
    absent = sorted(
        name for name, file in listed.items() if name not in found or found[name].file.name != file
    )
    if absent:
        raise UserError(
            f"shards lack {len(absent)} tensors of the index: {name_some(absent)}",
            where=str(index),
            fix="fetch the shards again",
        )
    return found


def _open_file(file: Path) -> dict[str, StoredTensor]:
    headers: dict[str, tuple[tuple[int, ...], torch.dtype | None, str]] = {}
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.offset_keys():
                    part = opened.get_slice(name)
                    headers[name] = (tuple(part.get_shape()), _DTYPES.get(part.get_dtype()), part.get_dtype())
        except (SafetensorError, OSError) as error:
            raise _damaged(file, error) from error
    else:
        for name, tensor in _unpickled(file).items():
            plain = tensor.layout is torch.strided and tensor.dtype in _DTYPES.values()
            dtype = tensor.dtype if plain else None
            headers[name] = (tuple(tensor.shape), dtype, str(tensor.dtype))
    found = {}
    for name, (shape, dtype, said) in headers.items():
        if dtype is None:
            raise UserError(
                f"the tensor {name} is of type {said}",
                where=str(file),
                fix="convert a checkpoint of floating-point weights; quantize afterwards",
            )
        found[name] = StoredTensor(file, name, shape, dtype)
    return found


@lru_cache(maxsize=2)  # an adapter's file, and a shard of its base
def _unpickled(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a pickled file, mapped where it is a zip file, else read whole.

    The last two stay open.
    """
    try:
        try:
            loaded: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle raises whatever the bytes make it raise
        if "Weights only load failed" in str(error):
            raise UserError(
                "the file holds more than tensors, and what it holds could run code",
                where=str(file),
                fix="get the checkpoint as safetensors from somebody you trust",
            ) from error
        raise _damaged(file, error) from error
    if not isinstance(loaded, dict) or not all(isinstance(t, torch.Tensor) for t in loaded.values()):
        raise UserError("the file is no mapping of names to tensors", where=str(file), fix=_FETCH_AGAIN)
    return {str(name): tensor for name, tensor in loaded.items()}


def cannot_be_mapped(file: Path) -> bool:
    """Whether the file is pickled as PyTorch before 1.6 did it, and so is in memory whole when it is read."""
    return file.suffix == ".bin" and not is_zipfile(file)


def close_files() -> None:
    """Let go of the files that are still mapped or in memory."""
    _unpickled.cache_clear()


def name_some(names: list[str]) -> str:
    """Return the names for a sentence: the first twenty, and how many more there are."""
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


def _damaged(file: Path, error: Exception) -> UserError:
    why = " ".join(str(error).split())[:200]
    return UserError(f"a weights file is damaged: {why}", where=str(file), fix=_FETCH_AGAIN)
