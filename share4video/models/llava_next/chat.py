"""The reference chat runtime of ShareGPT4Video-8B: 16 frames on one grid, then a conversation about it.

It answers as the released code does (`model_vqa_tempcompass.py` for ``anyres``; `run.py`, the demo and two of
the evaluations for ``thumbnail``), but for two faults of the released demo: there every turn puts another
picture into the prompt, for which from the second turn on the model gets a tile of the first; and nothing
read before is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from share4video.chat import GRID_FRAMES, PRE_QUERY
from share4video.dataset.messages import IMAGE_MARK, Message
from share4video.errors import UserError
from share4video.media.compose import frame_grid
from share4video.models.chat_session import GREEDY, Decoding, Runtime, VisualKind
from share4video.models.generation import Context, stream_answer
from share4video.models.llava_next.processor import answer_ends, encode_prompt, load_processor
from share4video.models.loading import load_whole, place, weight_type
from share4video.models.visuals import VisualReader


def load(folder: Path, runtime: Runtime) -> LlavaNextChat:
    """Load a LLaVA-NeXT checkpoint.

    Raises:
        UserError: it is not whole, or the machine has no such device.
    """
    from transformers import LlavaNextForConditionalGeneration

    processor = load_processor(folder, training=False)
    model = load_whole(
        LlavaNextForConditionalGeneration,
        folder,
        dtype=weight_type(runtime),
        fix="give a LLaVA-NeXT checkpoint with safetensors weights",
    )
    return LlavaNextChat(place(model, runtime), processor, runtime, VisualReader(folder))


class LlavaNextChat:
    """A loaded LLaVA-NeXT; see `share4video.models.chat_session.ChatModel`."""

    def __init__(self, model: Any, processor: Any, runtime: Runtime, reader: VisualReader) -> None:
        self.model, self.processor = model, processor
        self.runtime, self._reader = runtime, reader
        self.end = answer_ends(processor, model.generation_config, model.config.text_config)

    def open(self, visual: Path | None, kind: VisualKind = "video") -> LlavaNextSession:
        """Begin a conversation. Raises UserError where the file is no video or no picture."""
        if visual is None:
            return self.open_picture(None)
        if kind == "image":
            return self.open_picture(self._reader.picture(visual))
        frames = self._reader.video_frames(visual, self.runtime.frames or GRID_FRAMES)
        return self.open_picture(frame_grid(frames), preface=PRE_QUERY)

    def open_picture(self, picture: Image.Image | None, *, preface: str = "") -> LlavaNextSession:
        """Begin a conversation about a picture at hand, or about none.

        Args:
            picture: RGB; for a clip, its frames as `share4video.media.compose.frame_grid` lays them out.
            preface: what stands in front of the first question; for a grid, `share4video.chat.PRE_QUERY`.
        """
        features_ND = None if picture is None else self.picture_features(picture)
        return LlavaNextSession(self, features_ND, preface)

    @torch.inference_mode()
    def picture_features(self, picture: Image.Image) -> torch.Tensor:
        """Return what stands for the picture in the prompt, (tokens, hidden), by the runtime's visual path.

        ``anyres``: the overview and the tiles without their padding, a line break after every row.
        ``thumbnail``: the overview alone, the picture squashed into one square of the tower's side.
        """
        batch = self.processor.image_processor(images=[picture.convert("RGB")], return_tensors="pt")
        tiles_TCHW = batch["pixel_values"][0].to(self.model.device, self.model.dtype)
        if self.runtime.visual_path == "anyres":
            found = self.model.get_image_features(
                pixel_values=tiles_TCHW[None], image_sizes=batch["image_sizes"], return_dict=True
            )
            features: torch.Tensor = found.pooler_output[0]
            return features
        config, inner = self.model.config, self.model.model
        hidden = inner.vision_tower(tiles_TCHW[:1], output_hidden_states=True, return_dict=True).hidden_states
        layers = config.vision_feature_layer
        chosen = [hidden[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
        patches_1ND = torch.cat(chosen, dim=-1)
        if config.vision_feature_select_strategy == "default":
            patches_1ND = patches_1ND[:, 1:]  # without the class token
        overview: torch.Tensor = inner.multi_modal_projector(patches_1ND)[0]
        return overview


class LlavaNextSession:
    """A conversation; see `share4video.models.chat_session.ChatSession`.

    The picture stands at the head of the first user turn and nowhere else.
    """

    def __init__(self, chat: LlavaNextChat, features_ND: torch.Tensor | None, preface: str) -> None:
        self._chat, self._features_ND, self._preface = chat, features_ND, preface
        limit = chat.model.config.text_config.max_position_embeddings
        self._context = Context(chat.model, limit)
        self.messages: tuple[Message, ...] = ()

    @property
    def computed_tokens(self) -> int:
        """Tokens of prompts the model ran over so far; what its cache held is not counted again."""
        return self._context.computed_tokens

    def ask(self, question: str, decoding: Decoding = GREEDY) -> Iterator[str]:
        """Yield the answer as it comes; the turn counts once its last piece was taken.

        Raises:
            UserError: the question holds the mark of a picture, or the conversation is longer than the model
                holds.
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
        """Return the whole conversation up to the answer as token ids, the image token once per feature."""
        return self._prompt(self._with_question(question))[0]

    def first_logits(self, question: str) -> torch.Tensor:
        """Return (vocabulary,) float32 logits of the answer's first token; the question is not kept."""
        return self._context.read(*self._prompt(self._with_question(question)))

    def _with_question(self, question: str) -> tuple[Message, ...]:
        if IMAGE_MARK in question:
            fix = "write the question without it"
            raise UserError(f"a question may not hold {IMAGE_MARK}, the mark of a picture", fix=fix)
        if not self.messages:
            mark = "" if self._features_ND is None else f"{IMAGE_MARK}\n"
            question = mark + self._preface + question
        return (*self.messages, Message("user", question))

    def _prompt(self, turns: tuple[Message, ...]) -> tuple[list[int], torch.Tensor | None]:
        """Return the prompt's token ids, and (1, length, hidden) embeddings with the picture in its place."""
        features_ND, model = self._features_ND, self._chat.model
        copies = 0 if features_ND is None else len(features_ND)
        ids = encode_prompt(self._chat.processor, turns, image_tokens=copies)
        if features_ND is None:
            return ids, None
        with torch.inference_mode():
            ids_1L = torch.tensor([ids], device=model.device)
            embeddings_1LD = model.get_input_embeddings()(ids_1L)
            picture_1LD = (ids_1L == model.config.image_token_id)[..., None].expand_as(embeddings_1LD)
            return ids, embeddings_1LD.masked_scatter(picture_1LD, features_ND.to(embeddings_1LD.dtype))
