"""The shipped nano models know only synthetic clips; on anything else they are refused, not believed.

A checkpoint states its domain in its folder: ``"domain": "synthetic"`` in ``share4video.json`` (the model
card a program reads) or in ``config.json``. A checkpoint that states none takes any clip.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from share4video.errors import UserError

Domain = Literal["any", "synthetic"]

REAL_MODELS = (
    "use a real model, ShareGPT4Video-8B or a captioner of that class behind vLLM, and name its address: "
    "--url http://HOST:PORT for chat, --set engines.captioner.url=http://HOST:PORT/v1 for captions"
)
_CARDS = ("share4video.json", "config.json")
_MAX_CARD_BYTES = 1 << 20


def domain_of(folder: Path) -> Domain:
    """Return the domain the checkpoint in ``folder`` was trained for.

    Raises:
        UserError: a card is not JSON.
    """
    for name in _CARDS:
        card = folder / name
        if not card.is_file() or card.stat().st_size > _MAX_CARD_BYTES:
            continue
        try:
            fields = json.loads(card.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(
                "the model's card is not JSON", where=str(card), fix="restore the file"
            ) from error
        if isinstance(fields, dict) and fields.get("domain") == "synthetic":
            return "synthetic"
    return "any"


def refuse_foreign_clip(
    domain: Domain, frames: Sequence[NDArray[np.uint8]], *, model: str, where: str = ""
) -> None:
    """Check that a clip is one the model knows.

    Args:
        frames: some of the clip's frames, each (height, width, 3) RGB.
        model: the model's name, for the sentence.
        where: the clip's name, for the sentence.

    Raises:
        UserError: the model knows only synthetic clips and this is none.
    """
    if domain == "any":
        return
    from share4video.synthetic.domain import is_synthetic

    if not is_synthetic(list(frames)):
        raise UserError(
            f"{model} knows only the synthetic clips it was trained on, and this is not one",
            where=where,
            fix=REAL_MODELS,
        )
