"""LLaVA-NeXT's processor: loaded whole, checked for what training needs, and split in its two halves.

Text and picture go through it separately: a conversation's tokens depend on the picture's size alone, so
lengths are known before a pixel is read, and a picture that many conversations share is processed once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from share4video.dataset.messages import Message
from share4video.errors import UserError
from share4video.models import encoded_text
from share4video.models.encoded_text import EncodedText, as_parts

if TYPE_CHECKING:
    import torch
    from PIL import Image

_PIL_CLASS = "LlavaNextImageProcessorPil"


def pin_pil(folder: Path) -> None:
    """Say in a processor's configuration that pictures go through PIL.

    transformers writes the same name for each backend and takes torchvision where it is installed; the name
    of the PIL class, which it knows as well, is how `keep_backend` tells.
    """
    path = folder / "processor_config.json"
    found = json.loads(path.read_bytes())
    found["image_processor"]["image_processor_type"] = _PIL_CLASS
    path.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def keep_backend(processor: Any, folder: Path) -> Any:
    """Return the processor loaded from ``folder`` with the picture backend that was pinned there.

    The option ``backend`` of ``from_pretrained`` would reach the tokenizer, too, and break its masks.
    """
    try:
        found = json.loads((folder / "processor_config.json").read_bytes())
        pinned = found["image_processor"]["image_processor_type"] == _PIL_CLASS
    except (OSError, ValueError, KeyError, TypeError):
        pinned = False
    if pinned:
        from transformers import LlavaNextImageProcessorPil

        processor.image_processor = LlavaNextImageProcessorPil.from_pretrained(folder, local_files_only=True)
    return processor


def load_processor(folder: Path, *, training: bool = True) -> Any:
    """Load the processor of the checkpoint in ``folder``.

    Args:
        training: whether the chat template must mark what the model is to learn.

    Raises:
        UserError: it is missing or incomplete, or its chat template does not mark what the model is to learn.
    """
    from jinja2 import TemplateSyntaxError
    from transformers import LlavaNextProcessor

    try:
        processor = keep_backend(LlavaNextProcessor.from_pretrained(folder, local_files_only=True), folder)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"the model folder holds no LLaVA-NeXT processor: {error}",
            where=str(folder),
            fix="copy processor_config.json, tokenizer.json and chat_template.jinja beside the weights",
        ) from error
    if not isinstance(processor.chat_template, str):
        raise UserError(
            "the model folder holds no chat template",
            where=str(folder),
            fix="put a chat_template.jinja beside the weights",
        )
    try:
        processor.apply_chat_template(as_parts([Message("user", "?")], "image"))
    except TemplateSyntaxError as error:
        raise UserError(
            f"the chat template is not valid Jinja: {error.message}",
            where=f"{folder / 'chat_template.jinja'}, line {error.lineno}",
            fix="mend the template",
        ) from error
    if training and "endgeneration" not in processor.chat_template:
        raise UserError(
            "the chat template does not mark the answers",
            where=str(folder / "chat_template.jinja"),
            fix="put {% generation %} and {% endgeneration %} around the assistant's text and end of turn",
        )
    if processor.vision_feature_select_strategy == "default" and processor.num_additional_image_tokens != 1:
        raise UserError(
            "the processor counts one image token too few",
            where=str(folder / "processor_config.json"),
            fix="set num_additional_image_tokens to 1, as the tower has a class token",
        )
    return processor


def encode_text(
    processor: Any, messages: Sequence[Message], image_size: tuple[int, int] | None
) -> EncodedText:
    """Put a conversation through chat template and tokenizer.

    Args:
        image_size: height and width in pixels of the picture the mark stands for; None where there is none.
    """
    if image_size is None:
        return encoded_text.encode_text(processor, messages, kind=None)
    counted = processor._get_num_multimodal_tokens(
        image_sizes=[image_size]
    )  # the one place that knows anyres
    copies = counted["num_image_tokens"][0]
    return encoded_text.encode_text(processor, messages, kind="image", copies=copies)


def end_of_turn(processor: Any) -> frozenset[int]:
    """Return the token that ends an answer in the chat template; empty where no special one does.

    A Llama-3 checkpoint may name its end of text alone, but what its conversations are trained on ends with
    its end of turn.
    """
    answered = processor.apply_chat_template(
        as_parts([Message("user", "?"), Message("assistant", "!")], "image"),
        tokenize=True,
        return_dict=True,
        processor_kwargs={"padding": False},
    )["input_ids"][0]
    special = {id for id, token in processor.tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset([token for token in answered if token in special][-1:])


def encode_image(processor: Any, image: Image.Image) -> torch.Tensor:
    """Return the picture's tiles, (tiles, 3, side, side), the whole picture scaled down being the first."""
    pixels: torch.Tensor = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"][0]
    return pixels
