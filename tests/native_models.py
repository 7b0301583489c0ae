"""Tiny random checkpoints of vision-language models that transformers knows, as their makers publish them.

Configuration, safetensors, tokenizer, processor and chat template are written to a folder; nothing is
downloaded. Templates have the shape of the published ones: what they refuse, these refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WIDTH = 32
CONTEXT = 16384
END = "<|im_end|>"

# ChatML, the parts of a turn in their order, and what stands where a picture is.
_CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'text' -%}{{- part['text'] -}}"
    "{%- elif part['type'] == 'image' -%}{{- 'PICTURE' -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
# Pictures before text, contents as lists only, user and assistant in turn and nobody else.
_INSTRUCT = (
    "{%- for message in messages -%}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}"
    "{%- endif -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- '[INST] ' -}}"
    "{%- for part in message['content'] | selectattr('type', 'equalto', 'image') -%}"
    "{{- '<image>\\n' -}}{%- endfor -%}"
    "{%- for part in message['content'] | selectattr('type', 'equalto', 'text') -%}"
    "{{- part['text'] -}}{%- endfor -%}"
    "{{- ' [/INST]' -}}"
    "{%- else -%}{{- message['content'][0]['text'] + '<|im_end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
)


def llava_next(folder: Path) -> Path:
    """LLaVA-NeXT over CLIP, 336-pixel tiles; its template knows no system message."""
    return _llava_next(folder, _INSTRUCT)


def llava_next_chatml(folder: Path) -> Path:
    """The same with a template that takes system messages."""
    return _llava_next(folder, _CHATML.replace("PICTURE", "<image>\\n"))


def _llava_next(folder: Path, template: str) -> Path:
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
    )

    from share4video.media.compose import hd_grids

    side, patch = 336, 112  # tiles of the real size, of few patches
    tokenizer = build_tokenizer("<image>")
    grids = sorted({*hd_grids(16), *hd_grids(9)})
    pinpoints = [[rows * side, columns * side] for columns, rows in grids]
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_grid_pinpoints=pinpoints,
        ),
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=template,
    )
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=side,
        patch_size=patch,
        projection_dim=16,
    )
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=LlamaConfig(**_text(tokenizer)),
        image_token_index=_id(tokenizer, "<image>"),
        image_grid_pinpoints=pinpoints,
    )
    return _save(LlavaNextForConditionalGeneration, config, processor, folder)


def qwen3_vl(folder: Path) -> Path:
    """Qwen3-VL, embeddings tied, with the configuration of a video processor."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokenizer = build_tokenizer(*_QWEN)
    size = {"shortest_edge": 32 * 32, "longest_edge": 64 * 32 * 32}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, size=size),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(patch_size=16, size=size),
        chat_template=_CHATML.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    vision = {
        "depth": 2,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    text = {**_text(tokenizer), "head_dim": 16, "rope_parameters": {**rope, "mrope_interleaved": True}}
    config = Qwen3VLConfig(
        vision_config=vision, text_config=text, tie_word_embeddings=True, **_qwen_ids(tokenizer)
    )
    return _save(Qwen3VLForConditionalGeneration, config, processor, folder)


def qwen2_5_vl(folder: Path) -> Path:
    """Qwen2.5-VL, embeddings not tied."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = build_tokenizer(*_QWEN)
    size = {"shortest_edge": 28 * 28, "longest_edge": 64 * 28 * 28}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=14, size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(patch_size=14, size=size),
        chat_template=_CHATML.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    vision = {
        "depth": 2,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [1],
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    config = Qwen2_5_VLConfig(
        vision_config=vision,
        text_config={**_text(tokenizer), "rope_parameters": rope},
        **_qwen_ids(tokenizer),
    )
    return _save(Qwen2_5_VLForConditionalGeneration, config, processor, folder)


def smolvlm(folder: Path) -> Path:
    """SmolVLM, which cuts a picture into tiles of its own and names their rows and columns in the prompt."""
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )
    from transformers.models.smolvlm import processing_smolvlm

    side, patch, scale = 64, 8, 2  # the model merges as many tokens at a time as a patch has pixels per side
    tokenizer = build_tokenizer(
        "<image>",
        "<fake_token_around_image>",
        "<global-img>",
        "<end_of_utterance>",
        "<video>",
        *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    )
    edge = {"longest_edge": 2 * side}
    parts: dict[str, Any] = {"size": edge, "max_image_size": {"longest_edge": side}}
    built_without = processing_smolvlm.num2words
    processing_smolvlm.num2words = built_without or str  # wanted by whoever builds one; not for pictures
    try:
        processor = SmolVLMProcessor(
            image_processor=SmolVLMImageProcessor(**parts),
            tokenizer=tokenizer,
            video_processor=SmolVLMVideoProcessor(
                **parts, video_sampling={"fps": 1, "max_frames": 4, "video_size": edge}
            ),
            image_seq_len=(side // patch // scale) ** 2,
            chat_template=_CHATML.replace("PICTURE", "<image>"),
        )
    finally:
        processing_smolvlm.num2words = built_without
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": side,
        "patch_size": patch,
    }
    config = SmolVLMConfig(
        vision_config=vision,
        text_config={"model_type": "llama", **_text(tokenizer)},
        image_token_id=_id(tokenizer, "<image>"),
        scale_factor=scale,
    )
    return _save(SmolVLMForConditionalGeneration, config, processor, folder)


NATIVE: dict[str, Callable[[Path], Path]] = {
    "llava-next": llava_next_chatml,
    "qwen3-vl": qwen3_vl,
    "qwen2.5-vl": qwen2_5_vl,
    "smolvlm": smolvlm,
}

_QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def _qwen_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return {name: _id(tokenizer, token) for name, token in zip(names, _QWEN, strict=True)}


def build_tokenizer(*special: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of single bytes and special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bare,
        pad_token="<pad>",
        eos_token=END,
        extra_special_tokens=["<|im_start|>", *special],
        model_max_length=CONTEXT,
    )


def _id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    return int(tokenizer.vocab[token])


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": CONTEXT,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 0.3,  # what is shown is to change what is said
    }


def _save(architecture: Any, config: Any, processor: Any, folder: Path) -> Path:
    import torch

    torch.manual_seed(1)
    model = architecture(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "visual.merger" in name and weight.ndim == 2:
                weight *= 2  # or what is shown would be lost among the words
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
