"""The reference chat runtime of VideoChat: a video's frames with their times, then a conversation about it.

It asks as the released demo does. The demo draws its answers (temperature 1, ``top_p`` 0.9, at most 1,000
tokens); without such a wish they are greedy here, as in every other family's runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from share4video.models.cached_session import CachedSession, Prompt, Turns
from share4video.models.chat_session import Runtime, VisualKind
from share4video.models.generation import Context, answer_ends
from share4video.models.loading import load_whole, place, weight_type
from share4video.models.videochat.model import VideoChatForConditionalGeneration
from share4video.models.videochat.processor import VideoChatProcessor, load_processor
from share4video.models.videochat.prompts import STOP, chat_prompt
from share4video.models.videochat.visuals import Visual, read_visual


def load(folder: Path, runtime: Runtime) -> VideoChat:
    """Load a VideoChat checkpoint.

    Raises:
        UserError: it is not whole, or the machine has no such device.
    """
    model = load_whole(
        VideoChatForConditionalGeneration,
        folder,
        dtype=weight_type(runtime),
        fix="make a VideoChat folder with share4video videochat convert",
    )
    processor = load_processor(folder, model.config.visual_tokens)
    return VideoChat(place(model, runtime), processor, runtime, folder)


class VideoChat:
    """A loaded VideoChat; see `share4video.models.chat_session.ChatModel`."""

    def __init__(
        self,
        model: VideoChatForConditionalGeneration,
        processor: VideoChatProcessor,
        runtime: Runtime,
        folder: Path,
    ) -> None:
        self.model, self.processor, self.runtime = model, processor, runtime
        self._folder = folder

    def open(self, visual: Path | None, kind: VisualKind = "video") -> CachedSession:
        """Begin a conversation. Raises UserError where the file is no video or no picture."""
        if visual is None:
            return self._session(None, None)
        frames = self.runtime.frames or self.model.config.frames
        found = read_visual(visual, kind, frames, model=self._folder)
        return self.open_visual(found)

    @torch.inference_mode()
    def open_visual(self, visual: Visual) -> CachedSession:
        """Begin a conversation about pictures at hand; the tower sees them once, here."""
        pixels = self.processor.pixels(visual.images, visual.kind)
        model = self.model
        features_QD = model.visual_features(pixels[None].to(model.device, model.vision_tower.dtype))[0]
        return self._session(visual, features_QD)

    def _session(self, visual: Visual | None, features_QD: torch.Tensor | None) -> CachedSession:
        """Begin a conversation; an answer ends at ``###``, however the tokenizer writes it."""
        kind, times_s = (None, ()) if visual is None else (visual.kind, visual.times_s)
        features_1QD = None if features_QD is None else features_QD[None]
        model, tokenizer = self.model, self.processor.tokenizer

        def prompt(turns: Turns, question: str) -> Prompt:
            ids = self.processor.prompt(*chat_prompt(kind, times_s, turns, question))
            with torch.inference_mode():
                return ids, model.embed(torch.tensor([ids], device=model.device), features_1QD)

        text: Any = model.config.text_config
        language: Any = model.language_model
        return CachedSession(
            Context(language, text.max_position_embeddings),
            tokenizer,
            prompt,
            end=answer_ends(tokenizer, language.generation_config, text),
            stop=STOP,
        )
