"""The reference chat runtime of Video-LLaVA: 8 frames or a picture at 224 pixels, then a conversation.

It answers as transformers' own model does when it is given the whole conversation. Frames are those of the
released Video-LLaVA (`share4video.media.sampling.spanning_indices`): the first, the last and even steps
between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from share4video.dataset.formats.llava import VIDEO_MARK
from share4video.dataset.messages import IMAGE_MARK
from share4video.media.frame_strip import FRAMES, spanning_frames
from share4video.models.cached_session import (
    CachedSession,
    Prompt,
    Turns,
    as_messages,
    embed_features,
    refuse_marks,
)
from share4video.models.chat_session import Runtime, VisualKind
from share4video.models.encoded_text import encode_prompt
from share4video.models.generation import Context, answer_ends
from share4video.models.loading import load_whole, place, weight_type
from share4video.models.video_llava.processor import (
    encode_frames,
    encode_picture,
    load_processor,
    visual_kind,
    visual_tokens,
)
from share4video.models.visuals import VisualReader


def load(folder: Path, runtime: Runtime) -> VideoLlavaChat:
    """Load a Video-LLaVA checkpoint.

    Raises:
        UserError: it is not whole, or the machine has no such device.
    """
    from transformers import VideoLlavaForConditionalGeneration

    processor = load_processor(folder, training=False)
    model = load_whole(
        VideoLlavaForConditionalGeneration,
        folder,
        dtype=weight_type(runtime),
        fix="give a Video-LLaVA checkpoint with safetensors weights",
    )
    return VideoLlavaChat(place(model, runtime), processor, runtime, VisualReader(folder))


class VideoLlavaChat:
    """A loaded Video-LLaVA; see `share4video.models.chat_session.ChatModel`."""

    def __init__(self, model: Any, processor: Any, runtime: Runtime, reader: VisualReader) -> None:
        self.model, self.processor = model, processor
        self.frames = runtime.frames or FRAMES
        self.end = answer_ends(processor.tokenizer, model.generation_config, model.config.text_config)
        self._reader = reader

    def open(self, visual: Path | None, kind: VisualKind = "video") -> CachedSession:
        """Begin a conversation. Raises UserError where the file is no video or no picture."""
        if visual is None:
            return self._session(None, 0)
        if kind == "image":
            return self.open_picture(self._reader.picture(visual))
        return self.open_frames(self._reader.video_frames(visual, self.frames, choose=spanning_frames))

    @torch.inference_mode()
    def open_picture(self, picture: Image.Image) -> CachedSession:
        """Begin a conversation about a picture at hand, RGB."""
        pixels_1CHW = encode_picture(self.processor, picture)[None].to(self.model.device, self.model.dtype)
        found = self.model.model.get_image_features(pixel_values_images=pixels_1CHW, return_dict=True)
        return self._session(found.pooler_output.flatten(0, 1), 0)

    @torch.inference_mode()
    def open_frames(self, frames: Sequence[Image.Image]) -> CachedSession:
        """Begin a conversation about a clip's frames at hand, RGB, in order."""
        pixels_FCHW = encode_frames(self.processor, frames).to(self.model.device, self.model.dtype)
        found = self.model.model.get_video_features(pixel_values_videos=pixels_FCHW[None], return_dict=True)
        return self._session(found.pooler_output.flatten(0, 1), len(frames))

    def _session(self, features_ND: torch.Tensor | None, frames: int) -> CachedSession:
        """Begin a conversation.

        The clip or picture stands at the head of the first user turn and nowhere else; it has gone through
        the tower.

        Args:
            features_ND: what stands for it in the prompt, (tokens, hidden); None for one about nothing.
            frames: of the clip; 0 for a picture.
        """
        config = self.model.config
        kind = visual_kind(features_ND is not None, frames)
        mark = config.video_token_id if frames else config.image_token_id
        copies = visual_tokens(self.processor, frames)
        head = "" if kind is None else f"{IMAGE_MARK}\n"

        def prompt(turns: Turns, question: str) -> Prompt:
            refuse_marks(question, (IMAGE_MARK, VIDEO_MARK))
            ids = encode_prompt(self.processor, as_messages(turns, question, head), kind=kind, copies=copies)
            return ids, None if features_ND is None else embed_features(self.model, ids, mark, features_ND)

        context = Context(self.model, config.text_config.max_position_embeddings)
        return CachedSession(context, self.processor.tokenizer, prompt, end=self.end)
