"""The reference chat runtime of Video-LLaVA: 8 frames or a picture at 224 pixels, then a conversation.

It answers as transformers' own model does when it is given the whole conversation. Frames are those of the
released Video-LLaVA (`share4video.media.sampling.spanning_indices`): the first, the last and even steps
between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from share4video.dataset.formats.llava import VIDEO_MARK
from share4video.dataset.messages import IMAGE_MARK, Message
from share4video.errors import UserError
from share4video.media.frame_strip import FRAMES, spanning_frames
from share4video.models.chat_session import GREEDY, Decoding, Runtime, VisualKind
from share4video.models.generation import Context, stream_answer
from share4video.models.loading import load_whole, place, weight_type
from share4video.models.video_llava.processor import (
    answer_ends,
    encode_frames,
    encode_picture,
    encode_prompt,
    load_processor,
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
        self.end = answer_ends(processor, model.generation_config, model.config.text_config)
        self._reader = reader

    def open(self, visual: Path | None, kind: VisualKind = "video") -> VideoLlavaSession:
        """Begin a conversation. Raises UserError where the file is no video or no picture."""
        if visual is None:
            return VideoLlavaSession(self, None, 0)
        if kind == "image":
            return self.open_picture(self._reader.picture(visual))
        return self.open_frames(self._reader.video_frames(visual, self.frames, choose=spanning_frames))

    @torch.inference_mode()
    def open_picture(self, picture: Image.Image) -> VideoLlavaSession:
        """Begin a conversation about a picture at hand, RGB."""
        pixels_1CHW = encode_picture(self.processor, picture)[None].to(self.model.device, self.model.dtype)
        found = self.model.model.get_image_features(pixel_values_images=pixels_1CHW, return_dict=True)
        return VideoLlavaSession(self, found.pooler_output.flatten(0, 1), 0)

    @torch.inference_mode()
    def open_frames(self, frames: Sequence[Image.Image]) -> VideoLlavaSession:
        """Begin a conversation about a clip's frames at hand, RGB, in order."""
        pixels_FCHW = encode_frames(self.processor, frames).to(self.model.device, self.model.dtype)
        found = self.model.model.get_video_features(pixel_values_videos=pixels_FCHW[None], return_dict=True)
        return VideoLlavaSession(self, found.pooler_output.flatten(0, 1), len(frames))


class VideoLlavaSession:
    """A conversation; see `share4video.models.chat_session.ChatSession`.

    The clip or picture stands at the head of the first user turn and nowhere else; it went through the tower
    when the conversation was opened.

    Args:
        features_ND: what stands for it in the prompt, (tokens, hidden); None for a conversation about none.
        frames: of the clip; 0 for a picture.
    """

    def __init__(self, chat: VideoLlavaChat, features_ND: torch.Tensor | None, frames: int) -> None:
        self._chat, self._features_ND, self._frames = chat, features_ND, frames
        self._context = Context(chat.model, chat.model.config.text_config.max_position_embeddings)
        self.messages: tuple[Message, ...] = ()

    @property
    def computed_tokens(self) -> int:
        """Tokens of prompts the model ran over so far; what its cache held is not counted again."""
        return self._context.computed_tokens

    def ask(self, question: str, decoding: Decoding = GREEDY) -> Iterator[str]:
        """Yield the answer as it comes; the turn counts once its last piece was taken.

        Raises:
            UserError: the question holds the mark of a picture or video, or the conversation is longer than
                the model holds.
        """
        turns = self._with_question(question)
        prompt, embeddings = self._prompt(turns)
        answer = ""
        for piece in stream_answer(
            self._context,
            self._chat.processor.tokenizer,
            prompt,
            decoding,
            end=self._chat.end,
            inputs_embeds=embeddings,
        ):
            answer += piece
            yield piece
        self.messages = (*turns, Message("assistant", answer))

    def prompt_tokens(self, question: str) -> list[int]:
        """Return the whole conversation up to the answer as token ids, the mark once per feature."""
        return self._prompt(self._with_question(question))[0]

    def first_logits(self, question: str) -> torch.Tensor:
        """Return (vocabulary,) float32 logits of the answer's first token; the question is not kept."""
        return self._context.read(*self._prompt(self._with_question(question)))

    def _with_question(self, question: str) -> tuple[Message, ...]:
        for mark in (IMAGE_MARK, VIDEO_MARK):
            if mark in question:
                fix = "write the question without it"
                raise UserError(f"a question may not hold {mark}, which stands for what is shown", fix=fix)
        if not self.messages and self._features_ND is not None:
            question = f"{IMAGE_MARK}\n{question}"
        return (*self.messages, Message("user", question))

    def _prompt(self, turns: tuple[Message, ...]) -> tuple[list[int], torch.Tensor | None]:
        """Return the prompt's token ids, and (1, length, hidden) embeddings with the features in place."""
        features_ND, model = self._features_ND, self._chat.model
        shown = features_ND is not None
        ids = encode_prompt(self._chat.processor, turns, visual=shown, frames=self._frames)
        if features_ND is None:
            return ids, None
        mark = model.config.video_token_id if self._frames else model.config.image_token_id
        with torch.inference_mode():
            ids_1L = torch.tensor([ids], device=model.device)
            embeddings_1LD = model.get_input_embeddings()(ids_1L)
            places_1LD = (ids_1L == mark)[..., None].expand_as(embeddings_1LD)
            return ids, embeddings_1LD.masked_scatter(places_1LD, features_ND.to(embeddings_1LD.dtype))
