"""The reference chat runtime of ShareGPT4Video-8B: 16 frames on one grid, then a conversation about it.

It answers as the released code does (`model_vqa_tempcompass.py` for ``anyres``; `run.py`, the demo and two of
the evaluations for ``thumbnail``), but for two faults of the released demo: there every turn puts another
picture into the prompt, for which from the second turn on the model gets a tile of the first; and nothing
read before is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from share4video.chat import GRID_FRAMES, PRE_QUERY
from share4video.dataset.messages import IMAGE_MARK
from share4video.media.compose import frame_grid
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
from share4video.models.llava_next.processor import end_of_turn, load_processor
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
        named = answer_ends(processor.tokenizer, model.generation_config, model.config.text_config)
        self.end = named | end_of_turn(processor)

    def open(self, visual: Path | None, kind: VisualKind = "video") -> CachedSession:
        """Begin a conversation. Raises UserError where the file is no video or no picture."""
        if visual is None:
            return self.open_picture(None)
        if kind == "image":
            return self.open_picture(self._reader.picture(visual))
        frames = self._reader.video_frames(visual, self.runtime.frames or GRID_FRAMES)
        return self.open_picture(frame_grid(frames), preface=PRE_QUERY)

    def open_picture(self, picture: Image.Image | None, *, preface: str = "") -> CachedSession:
        """Begin a conversation about a picture at hand, or about none.

        The picture stands at the head of the first user turn and nowhere else.

        Args:
            picture: RGB; for a clip, its frames as `share4video.media.compose.frame_grid` lays them out.
            preface: what stands in front of the first question; for a grid, `share4video.chat.PRE_QUERY`.
        """
        features_ND = None if picture is None else self.picture_features(picture)
        kind: VisualKind | None = None if features_ND is None else "image"
        copies = 0 if features_ND is None else len(features_ND)
        head = preface if features_ND is None else f"{IMAGE_MARK}\n{preface}"

        def prompt(turns: Turns, question: str) -> Prompt:
            refuse_marks(question, (IMAGE_MARK,))
            ids = encode_prompt(self.processor, as_messages(turns, question, head), kind=kind, copies=copies)
            if features_ND is None:
                return ids, None
            return ids, embed_features(self.model, ids, self.model.config.image_token_id, features_ND)

        context = Context(self.model, self.model.config.text_config.max_position_embeddings)
        return CachedSession(context, self.processor.tokenizer, prompt, end=self.end)

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
