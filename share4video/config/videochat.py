"""Settings of VideoChat's two training stages; the defaults are the released ones of the 7B."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from share4video.config.base import Config


class VideoChatAlignConfig(Config):
    """Stage 1: captions of videos and pictures teach the projector and the aggregators to speak.

    ``frames`` are those of a video. ``batch_size`` counts samples per optimizer step; the device takes
    ``micro_batch_size`` at a time. The rate warms up over ``warmup_epochs`` and falls along a
    cosine to ``min_lr_share`` of ``lr``. ``max_text_tokens`` bounds what stands after the visual tokens, of
    which stage 1 counts the caption alone: a longer sample is rejected, not cut. ``crop_min_share`` is the
    smallest part of a picture's area that is shown; 1 shows all of it. ``flip_share`` of the samples are
    mirrored: the released 0.5 makes left of right and is not the default. ``max_failed_share`` of the samples
    may have a video or picture that cannot be read before the training is refused.
    """

    frames: int = Field(4, ge=1, le=64)
    lr: float = Field(1e-4, gt=0)
    min_lr_share: float = Field(0.01, ge=0, le=1)
    weight_decay: float = Field(0.02, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    epochs: float = Field(1.0, gt=0)
    warmup_epochs: float = Field(0.2, ge=0)
    batch_size: int = Field(1024, ge=1)
    micro_batch_size: int = Field(32, ge=1)
    max_steps: int | None = Field(None, ge=1)
    max_text_tokens: int = Field(32, ge=4)
    crop_min_share: float = Field(0.5, gt=0, le=1)
    flip_share: float = Field(0.0, ge=0, le=1)
    max_failed_share: float = Field(0.01, ge=0, lt=1)
    precision: Literal["fp32", "bf16"] = "bf16"
    activation_checkpointing: bool = True
    save_every_steps: int = Field(100, ge=1)
    log_every_steps: int = Field(10, ge=1)
    seed: int = 42


class VideoChatInstructConfig(VideoChatAlignConfig):
    """Stage 2: conversations about videos and pictures. Settings are those of stage 1."""

    frames: int = Field(8, ge=1, le=64)
    lr: float = Field(2e-5, gt=0)
    min_lr_share: float = Field(0.25, ge=0, le=1)
    epochs: float = Field(3.0, gt=0)
    warmup_epochs: float = Field(0.6, ge=0)
    batch_size: int = Field(32, ge=1)
    micro_batch_size: int = Field(1, ge=1)
    max_text_tokens: int = Field(512, ge=4)


class VideoChatTrainConfig(Config):
    """Both stages."""

    stage1: VideoChatAlignConfig = VideoChatAlignConfig()
    stage2: VideoChatInstructConfig = VideoChatInstructConfig()
