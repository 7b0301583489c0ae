"""Video-LLaVA as training sees it; see `share4video.models.family.Family`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from share4video.dataset.messages import Message
from share4video.media.frame_strip import split_strip
from share4video.models.encoded_text import EncodedText
from share4video.models.family import Shown
from share4video.models.video_llava import processor as processing
from share4video.models.video_llava.state_dict_adapter import disk_name

if TYPE_CHECKING:
    import torch
    from PIL import Image


class VideoLlavaFamily:
    """Pictures through one tower, the frames of clips through another."""

    title = "Video-LLaVA"
    architecture = "VideoLlavaForConditionalGeneration"
    takes_videos = True

    def load_processor(self, folder: Path) -> Any:
        return processing.load_processor(folder)

    def other_template(self, processor: Any, folder: Path) -> str | None:
        own = processing.read_processor(folder).chat_template
        template: str = processor.chat_template
        return None if template == own else template

    def encode_text(
        self, processor: Any, messages: Sequence[Message], size: tuple[int, int] | None, frames: int
    ) -> EncodedText:
        return processing.encode_text(processor, messages, visual=size is not None, frames=frames)

    def encode_image(self, processor: Any, image: Image.Image, strip: bool) -> torch.Tensor:
        if strip:
            return processing.encode_frames(processor, split_strip(image))
        return processing.encode_picture(processor, image)[None]

    def batch(self, shown: Sequence[Shown]) -> dict[str, torch.Tensor]:
        """Return ``pixel_values_images`` (pictures, 3, side, side) and ``pixel_values_videos`` (clips,
        frames, 3, side, side), each left out where there is none.

        Raises:
            ValueError: clips of one batch have different numbers of frames.
        """
        import torch

        found = {}
        pictures = [one.pixels for one in shown if not one.frames]
        clips = [one.pixels for one in shown if one.frames]
        if pictures:
            found["pixel_values_images"] = torch.cat(pictures)
        if clips:
            if len({len(clip) for clip in clips}) > 1:
                raise ValueError("clips of one batch must have the same number of frames")
            found["pixel_values_videos"] = torch.stack(clips)
        return found

    def disk_name(self, name: str) -> str:
        return disk_name(name)


FAMILY = VideoLlavaFamily()
