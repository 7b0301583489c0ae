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

from share4video.captioning.checkpoints import checkpoint_folder
from share4video.config import EngineSpec
from share4video.errors import UserError

Domain = Literal["any", "synthetic"]

REAL_MODELS = (
    "use a real model behind an OpenAI address: for captions --config paper --engine qwen3-vl-8b, or another "
    "of configs/engines.yaml, with --set engines.captioner.url=http://HOST:8000/v1, or --config cluster in a "
    "cluster with an InferenceService named captioner; for chat share4video serve http://HOST:8000/v1 --name "
    "MODEL, and then share4video chat --url http://127.0.0.1:8080"
)
_WHITE = 225
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


def engine_domain(spec: EngineSpec) -> Domain:
    """Return the domain of an engine; one that runs elsewhere takes any clip, as far as is known.

    Raises:
        UserError: the checkpoint is missing or damaged.
    """
    return "any" if spec.model_path is None else domain_of(checkpoint_folder(spec.model_path))


def refuse_mixed(captioner: Domain, summarizer: Domain, *, names: tuple[str, str]) -> None:
    """Check that the models that caption a clip together know the same clips.

    Args:
        names: the captioner's and the summarizer's, for the sentence.

    Raises:
        UserError: one knows only synthetic clips and the other takes any.
    """
    if captioner != summarizer:
        small, other = names if captioner == "synthetic" else names[::-1]
        raise UserError(
            f"{small} knows only the synthetic clips it was trained on, and {other} takes any",
            where="captioner and summarizer",
            fix="name two models of one kind, or let the captioner summarize, too (--config paper does)",
        )


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
        raise _foreign(model, "this is not one", where)


def refuse_foreign_image(domain: Domain, image: NDArray[np.uint8], *, model: str, where: str = "") -> None:
    """Check that an image is of clips the model knows: a frame, or a layout of frames on white.

    Raises:
        UserError: the model knows only synthetic clips and this image is not of them.
    """
    if domain == "any":
        return
    from share4video.synthetic.domain import is_synthetic

    frames = _without_margins(image)
    if not frames.size or not is_synthetic([frames]):
        raise _foreign(model, "this image is of none", where)


def _without_margins(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Drop what the layouts put between frames: white bands, columns of labels, black rules."""
    white = image.min(axis=2) >= _WHITE
    image = image[:, white.mean(axis=0) < 0.7]  # a label leaves most of its column white
    if not image.size:
        return image
    white, black = image.min(axis=2) >= _WHITE, image.max(axis=2) <= 255 - _WHITE
    frames: NDArray[np.uint8] = image[(white | black).mean(axis=1) < 0.95]
    return frames


def _foreign(model: str, found: str, where: str) -> UserError:
    what = f"{model} knows only the synthetic clips it was trained on, and {found}"
    return UserError(what, where=where, fix=REAL_MODELS)
