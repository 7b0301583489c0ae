"""A VideoChat made from nothing: every part there and small, with a tokenizer fitted to the tests' words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from share4video.models.videochat.config import VideoChatConfig
from share4video.models.videochat.model import VideoChatForConditionalGeneration
from share4video.models.videochat.processor import VideoChatProcessor, build_image_processor
from share4video.models.videochat.prompts import VIDEO_REQUESTS

SIDE = 28
QUERIES, EXTRA = 4, 8
_CORPUS = (
    "###Human: <Video></Video> The video contains 8 frames sampled at 0.1, 2.5, 10.0 seconds.",
    "###Human: <Image></Image> ###Assistant: A red square moves to the left. A dark one stays. ###",
    "What is bright? What is dark? nothing is bright here, it is dark now and it was bright before.",
    *VIDEO_REQUESTS,
)


def tiny_tokenizer(*, bos: bool = True) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer; ``###`` is one token or several, as its neighbours have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>" if bos else None,
        eos_token="</s>",
        pad_token="</s>",
    )


def tiny_config(**changes: Any) -> VideoChatConfig:
    settings: dict[str, Any] = {
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": 14,
            "initializer_range": 0.2,
        },
        "qformer_config": {
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "initializer_range": 0.2,
        },
        "text_config": {
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": 420,
            "max_position_embeddings": 512,
            "initializer_range": 0.2,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "gmhra_layers": 2,
        "num_query_tokens": QUERIES,
        "num_extra_query_tokens": EXTRA,
        "initializer_range": 0.2,
    }
    return VideoChatConfig(**{**settings, **changes})


def tiny_model(seed: int = 0, **changes: Any) -> VideoChatForConditionalGeneration:
    """Return a model of random weights; nothing of it is zero, also what a training begins with at zero."""
    torch.manual_seed(seed)
    model = VideoChatForConditionalGeneration(tiny_config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def write_tiny(folder: Path, **changes: Any) -> Path:
    """Write a whole checkpoint folder."""
    model = tiny_model(**changes)
    model.save_pretrained(folder)
    processor = VideoChatProcessor(tiny_tokenizer(), build_image_processor(SIDE), model.config.visual_tokens)
    processor.save(folder)
    return folder
