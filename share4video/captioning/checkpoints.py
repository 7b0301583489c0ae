"""Local model folders, checked and named without loading them (and without torch)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import share4video
from share4video.errors import UserError, reading

BUILTIN_PREFIX = "builtin:"
_BUILTIN_ROOT = Path(share4video.__file__).parent / "synthetic" / "weights"
# What a model is made of; cards and licences are not.
_MODEL_SUFFIXES = {".json", ".safetensors", ".jinja", ".model", ".txt"}
_MAX_HEADER_BYTES = 100 << 20  # the format's own limit on a safetensors header
_COPY_AGAIN = "copy the model again"
_FOLDER = "the model folder"
_INDEX = "model.safetensors.index.json"

_revisions: dict[tuple[tuple[str, int, int], ...], str] = {}


def checkpoint_folder(model_path: str) -> Path:
    """Return the folder of ``builtin:<name>`` (weights shipped with the package) or of a local path.

    Raises:
        UserError: there is no such folder, or no model in it (see `check_checkpoint`).
    """
    if model_path.startswith(BUILTIN_PREFIX):
        name = model_path.removeprefix(BUILTIN_PREFIX)
        known = sorted(card.parent.name for card in _BUILTIN_ROOT.glob("*/config.json"))
        if name not in known:
            fix = f"known: {', '.join(known) or 'none'}"
            raise UserError("no such built-in model", where=model_path, fix=fix)
        folder = _BUILTIN_ROOT / name
    else:  # not pathlib's own: they raise where a user or the end of a chain of links is not found
        folder = Path(os.path.realpath(os.path.expanduser(model_path)))
    check_checkpoint(folder)
    return folder


def check_checkpoint(folder: Path) -> None:
    """Check that ``folder`` holds a whole Hugging Face checkpoint with safetensors weights.

    Reads headers only: a missing shard and a file cut short are found, wrong tensor names are not (the model
    server finds those, where the architecture is at hand).

    Raises:
        UserError: naming the file that is missing, damaged or cannot be read.
    """
    with reading(_FOLDER, folder):
        if not folder.is_dir():
            raise UserError(
                "no such model folder",
                where=str(folder),
                fix="check the path; a model on a hub is downloaded first, and its folder is named",
            )
        checkpoint_config(folder)
        weights = _weights_files(folder)
    if not weights:
        raise UserError(
            "the model folder holds no safetensors weights",
            where=str(folder),
            fix="convert the checkpoint with save_pretrained(safe_serialization=True)",
        )
    for file in weights:
        _check_weights_file(file)


def checkpoint_config(folder: Path) -> dict[str, Any]:
    """Return what the checkpoint's ``config.json`` holds.

    Raises:
        UserError: there is none, or it is an original LLaVA checkpoint's, which transformers does not load.
    """
    config = json_object(folder / "config.json")
    if "mm_vision_tower" in config:
        raise UserError(
            f"this is an original checkpoint of type {config.get('model_type')}, not one that can be loaded",
            where=str(folder),
            fix=f"convert it with share4video convert {folder} FOLDER, and name that folder",
        )
    return config


def _weights_files(folder: Path) -> list[Path]:
    """Return the files the weights are in: those the index names, or where there is none those there are."""
    index = folder / _INDEX
    if not index.is_file():
        return sorted(file for file in folder.iterdir() if file.suffix == ".safetensors")
    names = json_object(index).get("weight_map")
    if not isinstance(names, dict):
        raise UserError("the weight index has no weight_map", where=str(index), fix=_COPY_AGAIN)
    return sorted({folder / str(name) for name in names.values()})


def checkpoint_revision(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of the checkpoint's files, in hexadecimal.

    The answer is kept for as long as no file's size or time of change differs.

    Raises:
        UserError: a file cannot be read.
    """
    with reading(_FOLDER, folder):
        files = list(_model_files(folder))
        stats = [(str(file), file.stat()) for file in files]
        seen = tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
        if seen not in _revisions:
            total = hashlib.sha256()
            for file in files:
                with file.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                total.update(f"{file.relative_to(folder).as_posix()}\0{digest}\n".encode())
            _revisions[seen] = total.hexdigest()
    return _revisions[seen]


def checkpoint_bytes(folder: Path) -> int:
    """Return the size of the checkpoint's files. Raises UserError where the folder cannot be read."""
    with reading(_FOLDER, folder):
        return sum(file.stat().st_size for file in _model_files(folder))


def _model_files(folder: Path) -> Iterator[Path]:
    return iter(sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in _MODEL_SUFFIXES))


def json_object(file: Path) -> dict[str, Any]:
    """Read a file of a model folder. Raises UserError where it is missing or holds no JSON object."""
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        fix = "give a Hugging Face checkpoint"
        raise UserError(f"the model folder has no {file.name}", where=str(file.parent), fix=fix) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file.name}: {error}", where=str(file), fix=_COPY_AGAIN) from None
    if not isinstance(value, dict):
        raise UserError(f"{file.name} is not a JSON object", where=str(file), fix=_COPY_AGAIN)
    return value


def _check_weights_file(file: Path) -> None:
    """Compare the file's length with what its header promises (8-byte length, JSON, tensors)."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > min(_MAX_HEADER_BYTES, size):
                raise ValueError("its header is cut short")
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if size != 8 + length + max(ends, default=0):
            raise ValueError("its length is not what its header says")
    except FileNotFoundError:
        raise UserError(
            "a weights file is missing", where=str(file), fix="copy the whole model folder"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"a weights file is damaged: {error}", where=str(file), fix=_COPY_AGAIN) from None
