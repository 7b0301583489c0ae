"""How much people like a picture, by a head on CLIP's image embedding as LAION trained them.

Two heads are known: one linear layer, and five without anything between them (the "improved" predictor, whose
dropout does nothing here). Both take the embedding at length 1 and give about 1 (poor) to 10 (fine).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from share4video.config import AestheticConfig
from share4video.curation.encoders import Rgb, frame_encoder
from share4video.errors import UserError, reading

if TYPE_CHECKING:
    from share4video.curation.neural import OpenClipEncoder

_Layer = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]  # weight [out, in], bias [out]


class AestheticRater:
    """Rates pictures; the encoder's weights are loaded at the first `rate`.

    Raises:
        UserError: the encoder is none of open_clip's, or the head cannot be read or is no head.
    """

    def __init__(self, config: AestheticConfig) -> None:
        self._encoder = _encoder(config)
        self._layers = _read_head(config.head)

    @cached_property
    def revision(self) -> str:
        """Names the exact weights; equal revisions give equal scores."""
        return f"{self._encoder.name}@{self._encoder.revision}"

    def rate(self, frames: Sequence[Rgb]) -> float:
        """Return the mean score of frames of [H, W, 3] uint8 in RGB; at least one.

        Raises:
            UserError: the encoder's weights cannot be had, or the head is for embeddings of another size.
        """
        values = self._encoder.embed(frames)
        expected = self._layers[0][0].shape[1]
        if values.shape[1] != expected:
            raise UserError(
                f"the aesthetic head takes {expected} numbers, the encoder gives {values.shape[1]}",
                where=self._encoder.name,
                fix="give the encoder the head was trained on",
            )
        for weight, bias in self._layers:
            values = values @ weight.T + bias
        return float(np.mean(values))


def by_content(config: AestheticConfig) -> AestheticConfig:
    """Return the settings with the SHA-256 of local weights, and of the head, in place of their paths.

    Raises:
        UserError: they cannot be read, or the encoder is none of open_clip's.
    """
    with reading("the aesthetic head", config.head):
        head = hashlib.sha256(Path(config.head).read_bytes()).hexdigest()
    return config.model_copy(update={"encoder": _encoder(config).name, "head": head})


def _encoder(config: AestheticConfig) -> OpenClipEncoder:
    if not config.encoder.startswith("open_clip:"):
        fix = "use open_clip:ViT-L-14-quickgelu/openai"
        raise UserError("unknown encoder for aesthetic scores", where=config.encoder, fix=fix)
    from share4video.curation.neural import OpenClipEncoder

    found = frame_encoder(config.encoder)
    assert isinstance(found, OpenClipEncoder)
    return found


def _read_head(head: str) -> list[_Layer]:
    """Read a head's layers in order; each takes what the one before gives, the last gives one number."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        with reading("the aesthetic head", head):
            found: Mapping[str, npt.NDArray[np.float32]] = load_file(head)
        names = sorted((name for name in found if name.endswith("weight")), key=_number)
        layers = [(found[name], found[f"{name.removesuffix('weight')}bias"]) for name in names]
        sizes = [weight.shape[1] for weight, _ in layers[1:]] + [1]
        fits = bool(layers) and [weight.shape[0] for weight, _ in layers] == sizes
        fits = fits and all(bias.shape == weight.shape[:1] for weight, bias in layers)
    except (SafetensorError, KeyError, IndexError) as error:
        raise _no_head(head) from error
    if not fits:
        raise _no_head(head)
    return [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in layers]


def _number(name: str) -> tuple[int, str]:
    """Return the place of a layer: of ``layers.2.weight`` the 2."""
    numbers = [int(part) for part in name.split(".") if part.isdecimal()]
    return (numbers[-1] if numbers else 0, name)


def _no_head(head: str) -> UserError:
    return UserError(
        "this is no aesthetic head",
        where=head,
        fix="give a .safetensors file with the weight and bias of linear layers",
    )
