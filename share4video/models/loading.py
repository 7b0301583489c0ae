"""Weights of a checkpoint in this process: safetensors only, no code from the folder, nothing left random."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from share4video.errors import UserError
from share4video.models.chat_session import Runtime

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What transformers raises over a folder that is damaged or holds something else.
UNLOADABLE = (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError, SafetensorError)
_SHOWN_NAMES = 3
_DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,3})?")


def load_whole(
    architecture: Any,
    folder: Path,
    *,
    dtype: torch.dtype,
    called: str = "model",
    fix: str,
    fix_gaps: str = "convert the checkpoint with share4video convert, or copy it again",
    **options: Any,
) -> Any:
    """Load the checkpoint in ``folder`` and return the model, on the CPU.

    Args:
        architecture: the transformers class.
        called: what the sentence calls the model.
        fix: what to do where the folder holds another kind of model.
        fix_gaps: what to do where its weights do not fit its architecture.
        options: for ``from_pretrained``.

    Raises:
        UserError: it cannot be read, or a weight is missing, left over or of another shape: transformers
            would fill it in at random and go on.
    """
    try:
        model, report = architecture.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # so that they are reported, not raised one by one
            output_loading_info=True,
            **{"use_safetensors": True, **options},
        )
    except UNLOADABLE as error:
        raise UserError(
            f"the {called} cannot be loaded: {' '.join(str(error).split())[:300]}",
            where=str(folder),
            fix=fix,
        ) from error
    if problems := misfits(report):
        raise UserError(
            f"the {called}'s weights do not fit its architecture: {problems}",
            where=str(folder),
            fix=fix_gaps,
        )
    return model


def misfits(report: Mapping[str, Any]) -> str:
    """Return what transformers would go on without: weights missing, unexpected and of another shape.

    Args:
        report: what ``from_pretrained`` returns with ``output_loading_info=True``.
    """
    return "; ".join(
        f"{len(report[kind])} {kind.removesuffix('_keys')} ({_some(report[kind])} ...)"
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if report[kind]
    )


def place(model: Any, runtime: Runtime) -> Any:
    """Move a loaded model to its device, ready to answer, and return it.

    Raises:
        UserError: it is neither ``cpu`` nor ``cuda``, or this machine has no such device, or not the memory.
    """
    where = f"--device {runtime.device}"
    if not _DEVICE.fullmatch(runtime.device):
        raise UserError("the model cannot be put on the device", where=where, fix="use cpu or cuda:N")
    try:
        return model.eval().requires_grad_(False).to(torch.device(runtime.device))
    except (RuntimeError, AssertionError) as error:  # torch raises either, with a page of advice
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"the model cannot be put on the device: {reason}", where=where, fix="use cpu or cuda:N"
        ) from error


def weight_type(runtime: Runtime) -> torch.dtype:
    """Return the runtime's number format. Raises UserError where there is no such one."""
    if runtime.dtype not in DTYPES:
        raise UserError("there is no such number format", where=runtime.dtype, fix=f"use {', '.join(DTYPES)}")
    return DTYPES[runtime.dtype]


def _some(keys: Any) -> str:
    names = sorted(str(key if isinstance(key, str) else key[0]) for key in keys)  # mismatched: (name, shapes)
    return ", ".join(names[:_SHOWN_NAMES])
