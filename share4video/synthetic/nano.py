"""Nano models: real LLaVA-NeXT checkpoints small enough to ship, train and serve on a laptop's CPU.

Three kinds: ``captioner`` (pairs, single frames, grids and strips to text), ``summarizer`` (text only) and
``chat`` (16-frame grids). They know the synthetic clips and nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from share4video.models.llava_next.state_dict_adapter import disk_name
from share4video.synthetic.tokenizer import CONTEXT, IMAGE, VOCABULARY, build_tokenizer

if TYPE_CHECKING:
    from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor, PreTrainedTokenizerFast

Kind = Literal["captioner", "summarizer", "chat"]
FOLDERS: dict[Kind, str] = {
    "captioner": "nano-captioner",
    "summarizer": "nano-summarizer",
    "chat": "nano-base",
}

IMAGE_SIDE, PATCH = 96, 16
WIDTH = 128  # of the tower and of the language model
# (height, width): one tile, a stacked pair, two side by side, a grid, a strip of many frames
PINPOINTS = [[96, 96], [192, 96], [96, 192], [192, 192], [384, 96]]
# A final assistant message under ``add_generation_prompt`` is a prefill: no end of turn, no new header.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- set prefill = add_generation_prompt and loop.last and message['role'] == 'assistant' -%}"
    "{{- '<|' + message['role'] + '|>\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}"
    "{%- if not prefill -%}{{- '<|end|>' -}}{%- endif -%}"
    "{%- endgeneration -%}"
    "{%- elif message['content'] is string -%}{{- message['content'] + '<|end|>' -}}"
    "{%- else -%}"
    "{%- for part in message['content'] if part['type'] in ('image', 'image_url') -%}"
    "{{- '<image>\\n' -}}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}"
    "{{- part['text'] -}}{%- endfor -%}"
    "{{- '<|end|>' -}}"
    "{%- endif -%}"
    "{%- if add_generation_prompt and loop.last and not prefill -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
)


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaNextProcessor:
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    images = LlavaNextImageProcessor(
        size={"shortest_edge": IMAGE_SIDE},
        crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE},
        image_grid_pinpoints=PINPOINTS,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        do_center_crop=False,
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(
    kind: Kind, tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> LlavaNextForConditionalGeneration:
    """Build the random-weight model of a kind (captioner and chat 1.7 M parameters, summarizer 0.6 M)."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

    torch.manual_seed(seed)
    sees = kind != "summarizer"
    vision = CLIPVisionConfig(
        hidden_size=WIDTH if sees else 16,
        intermediate_size=384 if sees else 16,
        num_hidden_layers=4 if sees else 1,
        num_attention_heads=4 if sees else 1,
        image_size=IMAGE_SIDE,
        patch_size=PATCH,
        projection_dim=16,
    )
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=288,
        num_hidden_layers=4 if sees else 3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=int(tokenizer.vocab[IMAGE]),
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    model = LlavaNextForConditionalGeneration(config)
    generation = model.generation_config
    generation.eos_token_id, generation.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    generation.do_sample, generation.max_new_tokens = False, 512
    return model


def save_processor(folder: Path) -> None:
    """Fit the tokenizer and write the processor to ``folder``, unless it is there."""
    if not (folder / "processor_config.json").exists():
        build_processor(build_tokenizer()).save_pretrained(folder)


def load_processor(folder: Path) -> LlavaNextProcessor:
    from transformers import LlavaNextProcessor

    processor = LlavaNextProcessor.from_pretrained(folder)
    assert isinstance(processor, LlavaNextProcessor)
    return processor


def save_checkpoint(
    model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, folder: Path
) -> None:
    """Write a model as fp16 safetensors with its processor, chat template and domain card.

    Weights have the names every server reads, which are not those transformers saves a new model under.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model.half()
    weights = {
        disk_name(name): tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embeddings
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "share4video.json").write_text(json.dumps({"domain": "synthetic"}) + "\n", encoding="utf-8")


def write_checkpoint(folder: Path, kind: Kind, seed: int = 0) -> Path:
    """Write a random-weight checkpoint with processor and chat template: a small real model for tests."""
    tokenizer = build_tokenizer()
    save_checkpoint(build_model(kind, tokenizer, seed), build_processor(tokenizer), folder)
    return folder
