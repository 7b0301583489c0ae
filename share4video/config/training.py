"""Settings of training, evaluation and promotion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from share4video.config.base import Config


class TrainConfig(Config):
    """Supervised fine-tuning (paper section 4 and the released script: LoRA on the LLM, own rates elsewhere).

    ``batch_size`` counts sequences per optimizer step over all devices; a device takes ``micro_batch_size``
    at a time. ``pack_samples`` puts up to that many samples of one picture into one sequence that holds the
    picture once. ``loss_weighting`` says whether every supervised token or every sample weighs the same. A
    rate of 0 freezes its part. ``deepspeed`` is ``zero2`` or a DeepSpeed configuration file.
    """

    base_model: str = "builtin:nano-base"
    lora_rank: int = Field(128, ge=1)
    lora_alpha: int = Field(256, ge=1)
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    lr_language: float = Field(2e-4, gt=0)
    lr_projector: float = Field(2e-5, ge=0)
    lr_tower: float = Field(2e-6, ge=0)
    warmup_share: float = Field(0.03, ge=0, lt=1)
    batch_size: int = Field(128, ge=1)
    micro_batch_size: int = Field(2, ge=1)
    pack_samples: int = Field(1, ge=1, le=64)
    loss_weighting: Literal["token", "sample"] = "token"
    epochs: float = Field(1.0, gt=0)
    max_steps: int | None = Field(None, ge=1)
    max_length: int = Field(6144, ge=16)
    save_every_steps: int = Field(100, ge=1)
    log_every_steps: int = Field(10, ge=1)
    precision: Literal["fp32", "bf16"] = "bf16"
    save_precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    activation_checkpointing: bool = True
    deepspeed: str | None = None
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    image_cache_gib: float = Field(2.0, ge=0)
    seed: int = 0


class EvaluateConfig(Config):
    """MVBench's reference protocol over a question file."""

    frames: int = Field(16, ge=1, le=64)
    max_tokens: int = Field(32, ge=1)
    limit: int | None = Field(None, ge=1)  # of the questions, spread over the tasks
    control: bool = False  # ask everything once more without the image
    max_failed_share: float = Field(0.01, ge=0, le=1)  # of the questions that may stay without an answer


class GateConfig(Config):
    """When a candidate may become champion: paired bootstrap over the same questions."""

    bootstrap_samples: int = Field(2000, ge=100)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    task_tolerance: float = Field(0.05, ge=0, le=1)
    min_questions: int = Field(20, ge=1)  # fewer prove nothing
    seed: int = 0
