"""The reference chat runtime of VideoChat: a video's frames with their times, then a conversation about it.

It asks as the released demo does. The demo draws its answers (temperature 1, ``top_p`` 0.9, at most 1,000
tokens); without such a wish they are greedy here, as in every other family's runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.models.chat_session import GREEDY, Decoding, Runtime, VisualKind
from share4video.models.generation import Context, stream_answer
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

    def open(self, visual: Path | None, kind: VisualKind = "video") -> VideoChatSession:
        """Begin a conversation. Raises UserError where the file is no video or no picture."""
        if visual is None:
            return VideoChatSession(self, None, None)
        try:
            frames = self.runtime.frames or self.model.config.frames
            found = read_visual(visual, kind, frames, model=self._folder)
        except MediaError as error:
            raise UserError(
                f"the {kind} cannot be used: {error.sentence}", where=str(visual), fix=f"give a {kind} file"
            ) from error
        return self.open_visual(found)

    @torch.inference_mode()
    def open_visual(self, visual: Visual) -> VideoChatSession:
        """Begin a conversation about pictures at hand; the tower sees them once, here."""
        pixels = self.processor.pixels(visual.images, visual.kind)
        model = self.model
        features_QD = model.visual_features(pixels[None].to(model.device, model.vision_tower.dtype))[0]
        return VideoChatSession(self, visual, features_QD)

    @property
    def end(self) -> frozenset[int]:
        """The tokens that end an answer, beside the text ``###``."""
        ends = {self.processor.tokenizer.eos_token_id}
        configs: list[Any] = [self.model.language_model.generation_config, self.model.config.text_config]
        for config in configs:
            named = config.eos_token_id
            ends.update(named if isinstance(named, list) else [named])
        return frozenset(token for token in ends if token is not None)


class VideoChatSession:
    """A conversation; see `share4video.models.chat_session.ChatSession`."""

    def __init__(self, chat: VideoChat, visual: Visual | None, features_QD: torch.Tensor | None) -> None:
        self._chat, self._visual, self._features_QD = chat, visual, features_QD
        text: Any = chat.model.config.text_config
        self._context = Context(chat.model.language_model, text.max_position_embeddings)
        self.turns: tuple[tuple[str, str], ...] = ()

    @property
    def computed_tokens(self) -> int:
        """Tokens of prompts the model ran over so far; what its cache held is not counted again."""
        return self._context.computed_tokens

    def ask(self, question: str, decoding: Decoding = GREEDY) -> Iterator[str]:
        """Yield the answer as it comes; the turn counts once its last piece was taken.

        An answer ends at ``###``, however the tokenizer writes it, and has no white space around it.

        Raises:
            UserError: the conversation is longer than the model holds.
        """
        chat, answer = self._chat, ""
        prompt = self.prompt_tokens(question)
        pieces = stream_answer(
            self._context,
            chat.processor.tokenizer,
            prompt,
            replace(decoding, stop=(*decoding.stop, STOP)),
            end=chat.end,
            inputs_embeds=self._embed(prompt),
        )
        for piece in _trimmed(pieces):
            answer += piece
            yield piece
        self.turns = (*self.turns, (question, answer))

    def prompt_tokens(self, question: str) -> list[int]:
        """Return the whole conversation up to the answer as token ids; placeholders stand for the visual."""
        kind, times_s = (None, ()) if self._visual is None else (self._visual.kind, self._visual.times_s)
        return self._chat.processor.prompt(*chat_prompt(kind, times_s, self.turns, question))

    def first_logits(self, question: str) -> torch.Tensor:
        """Return (vocabulary,) float32 logits of the answer's first token; the question is not kept."""
        prompt = self.prompt_tokens(question)
        return self._context.read(prompt, self._embed(prompt))

    @torch.inference_mode()
    def _embed(self, prompt: list[int]) -> torch.Tensor:
        features = None if self._features_QD is None else self._features_QD[None]
        return self._chat.model.embed(torch.tensor([prompt], device=self._chat.model.device), features)


def _trimmed(pieces: Iterable[str]) -> Iterator[str]:
    """Yield pieces of text without the white space before the first and after the last character."""
    held, begun = "", False
    for piece in pieces:
        text = held + piece if begun else (held + piece).lstrip()
        shown = text.rstrip()
        held = text[len(shown) :]
        if shown:
            begun = True
            yield shown
