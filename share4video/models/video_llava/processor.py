"""Video-LLaVA's processor: loaded whole and checked, and split in its halves, text and pictures.

The prompt is that of the checkpoint's chat template, else Vicuna's (version 1), with which the model was
trained. A video stands as ``<video>``, repeated once per feature: 257 for each frame, class token included; a
picture as ``<image>``, 256 times. Pictures are scaled so that the shorter side is 224 pixels, cut to the
square in the middle and normalised with OpenAI CLIP's mean and deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from share4video.dataset.messages import Message
from share4video.errors import UserError
from share4video.models import encoded_text
from share4video.models.chat_session import VisualKind
from share4video.models.encoded_text import EncodedText

if TYPE_CHECKING:
    import torch
    from PIL import Image

# Vicuna v1, in which the released code trains and asks: turns end with the end of the text, whose name is the
# tokenizer's, and no space follows it.
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
VICUNA_TEMPLATE = (
    "{%- macro text(content) -%}"
    "{%- if content is string -%}{{- content -}}"
    "{%- else -%}{%- for part in content if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}"
    "{%- endif -%}{%- endmacro -%}"
    "{%- if messages[0]['role'] != 'system' -%}{{- '"
    + VICUNA_SYSTEM.replace("'", "\\'")
    + " ' -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{- text(message['content']) + ' ' -}}"
    "{%- elif message['role'] == 'user' -%}{{- 'USER: ' -}}"
    "{%- if message['content'] is not string -%}"
    "{%- for part in message['content'] if part['type'] in ('video', 'image') -%}"
    "{{- '<' + part['type'] + '>\\n' -}}{%- endfor -%}"
    "{%- endif -%}"
    "{{- text(message['content']) + ' ' -}}"
    "{%- else -%}{{- 'ASSISTANT:' -}}"
    "{%- generation -%}{{- ' ' + text(message['content']) + eos_token -}}{%- endgeneration -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}"
)


def load_processor(folder: Path, *, training: bool = True) -> Any:
    """Load the processor of the checkpoint in ``folder``.

    Args:
        training: whether the chat template must mark the answers, and their end as part of them. Where the
            checkpoint's does not (the published ones teach no end), Vicuna's stands in for it.

    Raises:
        UserError: it is missing or incomplete, or does not fit the model.
    """
    from jinja2 import TemplateError

    try:
        processor = read_processor(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"the model folder holds no Video-LLaVA processor: {' '.join(str(error).split())[:300]}",
            where=str(folder),
            fix="copy the processor's and the tokenizer's files beside the weights",
        ) from error
    for mark, token in (("image", processor.image_token_id), ("video", processor.video_token_id)):
        if token is None or token == processor.tokenizer.unk_token_id:
            raise UserError(
                f"the tokenizer has no token for <{mark}>",
                where=str(folder / "tokenizer.json"),
                fix="copy the tokenizer of the published checkpoint",
            )
    if processor.patch_size is None or processor.vision_feature_select_strategy is None:
        raise UserError(
            "the processor does not say how many features a picture has",
            where=str(folder / "processor_config.json"),
            fix="set patch_size to 14 and vision_feature_select_strategy to default",
        )
    if not isinstance(processor.chat_template, str):
        processor.chat_template = VICUNA_TEMPLATE
    try:
        taught = _teaches_the_end(processor)
    except TemplateError as error:
        raise UserError(
            f"the chat template cannot be used: {error}", where=str(folder), fix="mend the template"
        ) from error
    if training and not taught:
        processor.chat_template = VICUNA_TEMPLATE
    return processor


def read_processor(folder: Path) -> Any:
    """Return the processor as the folder has it, without transformers' word on which backend it found."""
    from transformers import VideoLlavaProcessor
    from transformers.utils import logging as transformers_logging

    library: Any = transformers_logging
    before = library.get_verbosity()
    library.set_verbosity_error()
    try:
        return VideoLlavaProcessor.from_pretrained(folder, local_files_only=True)
    finally:
        library.set_verbosity(before)


def visual_tokens(processor: Any, frames: int = 0) -> int:
    """Return how often the mark stands for a clip of so many frames, or with 0 for a picture."""
    side = processor.image_processor.crop_size["height"], processor.image_processor.crop_size["width"]
    patches = int(side[0] // processor.patch_size) * int(side[1] // processor.patch_size)
    whole = patches + int(processor.num_additional_image_tokens)
    if frames:
        return frames * whole
    return whole - int(processor.vision_feature_select_strategy == "default")


def encode_text(processor: Any, messages: Sequence[Message], *, visual: bool, frames: int = 0) -> EncodedText:
    """Put a conversation through chat template and tokenizer.

    Args:
        visual: whether the mark stands at the head of the first question.
        frames: of the clip it stands for; 0 for a picture.
    """
    kind = visual_kind(visual, frames)
    copies = visual_tokens(processor, frames)
    return encoded_text.encode_text(processor, messages, kind=kind, copies=copies)


def visual_kind(visual: bool, frames: int) -> VisualKind | None:
    """Return what the mark stands for; None where nothing is shown."""
    return None if not visual else "video" if frames else "image"


def encode_picture(processor: Any, image: Image.Image) -> torch.Tensor:
    """Return a picture as the image tower takes it, (3, side, side) in float32."""
    pixels: torch.Tensor = processor.image_processor(images=[image], return_tensors="pt")[
        "pixel_values_images"
    ][0]
    return pixels


def encode_frames(processor: Any, frames: Sequence[Image.Image]) -> torch.Tensor:
    """Return a clip's frames, all of one size, as the video tower takes them, (frames, 3, side, side)."""
    clip = np.stack([np.asarray(frame) for frame in frames])
    pixels: torch.Tensor = processor.video_processor([clip], return_tensors="pt")["pixel_values_videos"][0]
    return pixels


def _teaches_the_end(processor: Any) -> bool:
    """Say whether the chat template marks answers, and the token that ends them as part of them."""
    probe = encode_text(processor, [Message("user", "?"), Message("assistant", "!")], visual=False)
    learnt = probe.input_ids[probe.supervised].tolist()
    return bool(learnt) and learnt[-1] == processor.tokenizer.eos_token_id
