"""What a chat model's reference runtime offers, whatever its architecture: conversations about a clip.

`models/*/chat.py` implements it. Servers are how the product answers (see `share4video.chat`); this is for
parity with the original code, for reuse of keys and values, and for machines without a server.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol

from share4video.captioning.checkpoints import checkpoint_config
from share4video.decoding import GREEDY, Decoding
from share4video.errors import UserError

__all__ = [
    "GREEDY",
    "ChatModel",
    "ChatSession",
    "Decoding",
    "Runtime",
    "VisualKind",
    "VisualPath",
    "load_chat_model",
    "model_type",
]

VisualKind = Literal["video", "image"]
VisualPath = Literal["anyres", "thumbnail"]

FAMILIES = {
    "llava_next": "share4video.models.llava_next.chat",
    "video_llava": "share4video.models.video_llava.chat",
    "videochat": "share4video.models.videochat.chat",
}


@dataclass(frozen=True)
class Runtime:
    """How a checkpoint is run.

    Attributes:
        device: ``cpu`` or a CUDA device.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        frames: of a video, as the model sees them; None takes the family's own number.
        visual_path: LLaVA-NeXT only. ``anyres`` is what it was trained with; ``thumbnail``, the overview
            alone, is what the released demo and two of the three released evaluations fed.
    """

    device: str = "cpu"
    dtype: str = "float32"
    frames: int | None = None
    visual_path: VisualPath = "anyres"


class ChatSession(Protocol):
    """A conversation about one clip or picture, or about none; what was said stays in the model's cache."""

    @property
    def computed_tokens(self) -> int:
        """Tokens of prompts the model ran over so far; what its cache held is not counted again."""

    def ask(self, question: str, decoding: Decoding = GREEDY) -> Iterator[str]:
        """Yield the answer as it comes; the turn counts once its last piece was taken."""


class ChatModel(Protocol):
    """A loaded checkpoint."""

    def open(self, visual: Path | None, kind: VisualKind = "video") -> ChatSession:
        """Begin a conversation. Raises UserError where the file is no video or no picture."""


def load_chat_model(folder: Path, runtime: Runtime = Runtime()) -> ChatModel:
    """Load the checkpoint in ``folder`` with the runtime of its architecture.

    Raises:
        UserError: the folder holds no checkpoint, or of no architecture that has a reference runtime.
    """
    kind = model_type(folder)
    if kind not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UserError(
            f"no reference runtime for models of type {kind!r}", where=str(folder), fix=f"use one of {known}"
        )
    model: ChatModel = import_module(FAMILIES[kind]).load(folder, runtime)
    return model


def model_type(folder: Path) -> str:
    """Return the architecture that a checkpoint's ``config.json`` names.

    Raises:
        UserError: the folder holds no checkpoint, or an original one that is to be converted first.
    """
    config = checkpoint_config(folder)
    return str(config.get("model_type"))
