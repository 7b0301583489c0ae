"""What training asks of an architecture; everything else about it is the same for all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from share4video.dataset.messages import Message
from share4video.errors import UserError
from share4video.models.encoded_text import EncodedText

if TYPE_CHECKING:
    import torch
    from PIL import Image

_MODULES = {
    "llava_next": "share4video.models.llava_next.family",
    "video_llava": "share4video.models.video_llava.family",
}
_PROCESSORS = {"LlavaNextProcessor": "llava_next", "VideoLlavaProcessor": "video_llava"}


@dataclass(frozen=True)
class Shown:
    """What one sequence looks at.

    Attributes:
        pixels: (tiles or frames, 3, side, side).
        size: height and width in pixels of the file it was made from.
        frames: of a clip; 0 for a picture.
    """

    pixels: torch.Tensor
    size: tuple[int, int]
    frames: int


class Family(Protocol):
    """An architecture that can be trained.

    Attributes:
        title: what people call it.
        architecture: the transformers class.
        takes_videos: whether it sees the frames of a clip, or pictures alone.
    """

    title: str
    architecture: str
    takes_videos: bool

    def load_processor(self, folder: Path) -> Any:
        """Load the processor, its chat template marking answers. Raises UserError where that fails."""

    def other_template(self, processor: Any, folder: Path) -> str | None:
        """Return the chat template the training used, where it is not the one in the base's folder."""

    def encode_text(
        self, processor: Any, messages: Sequence[Message], size: tuple[int, int] | None, frames: int
    ) -> EncodedText:
        """Put a conversation through chat template and tokenizer.

        Args:
            size: height and width of the picture or strip the mark stands for; None where there is none.
            frames: of the strip; 0 for a picture.
        """

    def encode_image(self, processor: Any, image: Image.Image, strip: bool) -> torch.Tensor:
        """Return a picture's tiles, or the frames of a strip, (number, 3, side, side)."""

    def batch(self, shown: Sequence[Shown]) -> dict[str, torch.Tensor]:
        """Return the model's inputs for what a batch shows, in the order of its sequences; not empty."""

    def disk_name(self, name: str) -> str:
        """Return the on-disk name of a parameter. Raises ValueError where there is no such one."""


def family_of(folder: Path) -> Family:
    """Return the family of the checkpoint in ``folder``.

    Raises:
        UserError: it holds none, or one of an architecture that cannot be trained here.
    """
    try:
        kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            "the base model cannot be loaded: there is no config.json that can be read",
            where=str(folder),
            fix="name a folder with a checkpoint",
        ) from error
    if kind not in _MODULES:
        raise UserError(
            f"the base model cannot be loaded: models of type {kind!r} are not trained here",
            where=str(folder),
            fix=f"give one of {', '.join(_MODULES)}; share4video convert takes llava_llama",
        )
    return family_of_type(kind)


def family_of_type(model_type: str) -> Family:
    """Return the family of a configuration's ``model_type``, which must be one that can be trained."""
    family: Family = import_module(_MODULES[model_type]).FAMILY
    return family


def family_of_processor(processor: Any) -> Family:
    """Return the family whose processor this is."""
    return family_of_type(_PROCESSORS[type(processor).__name__])
