"""What VideoChat is given: pictures as its tower takes them, and text as token ids around their places.

Pictures are normalised with CLIP's mean and deviation, which the tower was trained with and the released demo
uses; the released training code used ImageNet's.

Shapes: T frames, S tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from share4video.errors import UserError
from share4video.models.chat_session import VisualKind
from share4video.models.encoded_text import EncodedText
from share4video.models.videochat.config import VISUAL_TOKEN
from share4video.models.videochat.prompts import Supervised

__all__ = ["EncodedText", "VideoChatProcessor", "build_image_processor", "load_processor"]


def build_image_processor(side: int = 224) -> Any:
    """Return what scales frames: the shorter side to ``side`` (bicubic), the middle cut out, CLIP's norm."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def load_processor(folder: Path, visual_tokens: int) -> VideoChatProcessor:
    """Load the processor of the checkpoint in ``folder``.

    Raises:
        UserError: the tokenizer or the picture settings are missing, or cannot do what training needs.
    """
    from transformers import AutoTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        images = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"the model folder holds no VideoChat processor: {' '.join(str(error).split())[:200]}",
            where=str(folder),
            fix="copy tokenizer.json, tokenizer_config.json and preprocessor_config.json beside the weights",
        ) from error
    return VideoChatProcessor(tokenizer, images, visual_tokens)


@dataclass(frozen=True)
class VideoChatProcessor:
    """Pictures and text for a model that sees ``visual_tokens`` tokens of either."""

    tokenizer: Any
    image_processor: Any
    visual_tokens: int

    def save(self, folder: Path) -> None:
        """Write what `load_processor` reads."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    @property
    def side(self) -> int:
        """Height and width of a picture as the tower takes it, in pixels."""
        return int(self.image_processor.crop_size["height"])

    def pixels(self, images: Sequence[Image.Image], kind: VisualKind) -> torch.Tensor:
        """Return (T, 3, side, side): frames cut to their middle square, a picture squashed, as the demo."""
        square = {"size": {"height": self.side, "width": self.side}, "do_center_crop": False}
        how = square if kind == "image" else {}
        batch = self.image_processor(images=list(images), return_tensors="pt", **how)
        pixels: torch.Tensor = batch["pixel_values"]
        return pixels

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return float pictures in 0 to 1, (T, 3, side, side), as the tower takes them."""
        mean, std = (
            torch.tensor(values)[:, None, None]
            for values in (self.image_processor.image_mean, self.image_processor.image_std)
        )
        return (pixels - mean) / std

    def prompt(self, before: str, after: str) -> list[int]:
        """Return a chat prompt's token ids; no visual tokens where ``after`` is empty."""
        visual = [VISUAL_TOKEN] * self.visual_tokens if after else []
        return [*self._start(), *self._ids(before), *visual, *self._ids(after)]

    def encode(self, text: Supervised) -> EncodedText:
        """Return a training text's token ids, with ``VISUAL_TOKEN`` once per visual token.

        Which tokens are answers is told by the tokenizer's offsets: those that lie in one whole.
        """
        encoded = self.tokenizer(text.after, add_special_tokens=False, return_offsets_mapping=True)
        learnt = [
            any(start <= first < last <= end for start, end in text.answers)
            for first, last in encoded["offset_mapping"]
        ]
        head = [*self._start(), *self._ids(text.before)] + [VISUAL_TOKEN] * self.visual_tokens
        return EncodedText(
            torch.tensor([*head, *encoded["input_ids"]]), torch.tensor([False] * len(head) + learnt)
        )

    def _start(self) -> list[int]:
        start = self.tokenizer.bos_token_id
        return [] if start is None else [int(start)]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
