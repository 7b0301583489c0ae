"""LLaVA-NeXT as training sees it; see `share4video.models.family.Family`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from share4video.dataset.messages import Message
from share4video.models.encoded_text import EncodedText
from share4video.models.family import Shown
from share4video.models.llava_next import processor as processing
from share4video.models.llava_next.state_dict_adapter import disk_name

if TYPE_CHECKING:
    import torch
    from PIL import Image


class LlavaNextFamily:
    """Pictures as an overview and tiles."""

    title = "LLaVA-NeXT"
    architecture = "LlavaNextForConditionalGeneration"
    takes_videos = False

    def load_processor(self, folder: Path) -> Any:
        return processing.load_processor(folder)

    def other_template(self, processor: Any, folder: Path) -> str | None:
        return None

    def encode_text(
        self, processor: Any, messages: Sequence[Message], size: tuple[int, int] | None, frames: int
    ) -> EncodedText:
        return processing.encode_text(processor, messages, size)

    def encode_image(self, processor: Any, image: Image.Image, strip: bool) -> torch.Tensor:
        return processing.encode_image(processor, image)

    def batch(self, shown: Sequence[Shown]) -> dict[str, torch.Tensor]:
        """Return ``pixel_values`` (all tiles, 3, side, side) and ``image_sizes`` (pictures, 2)."""
        import torch

        return {
            "pixel_values": torch.cat([one.pixels for one in shown]),
            "image_sizes": torch.tensor([one.size for one in shown]),
        }

    def disk_name(self, name: str) -> str:
        return disk_name(name)


FAMILY = LlavaNextFamily()
