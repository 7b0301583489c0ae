"""What a chat model's reference runtime offers, whatever its architecture: conversations about a clip.

`models/*/chat.py` implements it. Servers are how the product answers (see `share4video.chat`); this is for
parity with the original code, for reuse of keys and values, and for machines without a server.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol

from share4video.errors import UserError

VisualKind = Literal["video", "image"]
VisualPath = Literal["anyres", "thumbnail"]

_FAMILIES = {
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


@dataclass(frozen=True)
class Decoding:
    """How an answer is drawn: greedy at temperature 0; a seed makes a drawn one repeatable.

    Attributes:
        stop: strings that end the answer; none is part of it.

    Raises:
        UserError: a value is out of its bounds.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        bounds = (
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < math.inf, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("stop", all(self.stop), "no empty string"),
        )
        for name, holds, needed in bounds:
            if not holds:
                raise UserError(f"{name} is {getattr(self, name)!r}", fix=f"give {needed}")


GREEDY = Decoding()


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
    try:
        kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError("the folder holds no checkpoint", where=str(folder), fix="name another") from error
    if kind not in _FAMILIES:
        known = ", ".join(sorted(_FAMILIES))
        fix = f"use one of {known}; convert an original llava_llama checkpoint with share4video convert"
        raise UserError(f"no reference runtime for models of type {kind!r}", where=str(folder), fix=fix)
    model: ChatModel = import_module(_FAMILIES[kind]).load(folder, runtime)
    return model
