"""Every number a run uses: one frozen model per stage, read from YAML, overridden with ``--set a.b=c``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from share4video.errors import UserError


class Config(BaseModel):
    """Base of all configurations: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineSpec(Config):
    """A model behind the OpenAI chat-completions protocol.

    Exactly one of ``url``, ``model_path`` and ``inference_service`` says where it is: an endpoint that is
    running, a local checkpoint to serve for the time of the stage, or the name of a KServe InferenceService.
    Outputs depend on ``model`` and ``revision`` only, never on where the model ran. A relative
    ``model_path`` or ``builtin:<name>`` (weights shipped with the package) is resolved when it is served, and
    an empty revision of a local checkpoint becomes the hash of its files.
    """

    url: str | None = None
    model_path: str | None = None
    inference_service: str | None = None
    model: str = ""
    revision: str = ""
    dialect: Literal["sharecaptioner", "teacher"] = "sharecaptioner"
    max_in_flight: int = Field(4, ge=1, le=4096)
    request_timeout_s: float = Field(120.0, gt=0)
    retries: int = Field(4, ge=0, le=20)

    @model_validator(mode="after")
    def _one_place(self) -> EngineSpec:
        places = [self.url, self.model_path, self.inference_service]
        if sum(place is not None for place in places) != 1:
            raise ValueError("give exactly one of url, model_path and inference_service")
        return self


class ProbeConfig(Config):
    """Which sources become clips (paper section 3.1: at most two minutes; reference script: at least 10 s)."""

    min_duration_s: float = Field(10.0, ge=0)
    max_duration_s: float = Field(120.0, gt=0)
    min_height: int = Field(240, ge=1)
    max_pixels: int = Field(4096 * 2304, ge=1)
    min_fps: float = Field(5.0, gt=0)
    max_aspect: float = Field(3.0, ge=1)
    max_black_share: float = Field(0.8, ge=0, le=1)
    max_file_bytes: int = Field(4 << 30, ge=1)
    decode_timeout_s: float = Field(60.0, gt=0)
    licence: str = "unknown"


class BriefConfig(Config):
    """One-sentence captions from uniform frames, and their embeddings."""

    frames: int = Field(4, ge=1, le=64)
    max_tokens: int = Field(64, ge=1)
    embedder: str = "hashing"


class DedupConfig(Config):
    """Greedy leader de-duplication (paper section 3.1); the paper does not print its threshold."""

    mode: Literal["text", "visual", "both"] = "both"
    text_threshold: float = Field(0.95, ge=-1, le=1)
    visual_threshold: float = Field(0.95, ge=-1, le=1)
    floor: float = Field(0.5, ge=-1, le=1)


class KeyframeConfig(Config):
    """Semantic key frames (paper section 3.2: every 2 s, kept below 0.93 to the latest key frame)."""

    interval_s: float = Field(2.0, gt=0)
    encoder: str = "descriptor"
    threshold: float | None = None  # None: the encoder's own
    max_side: int = Field(1024, ge=64)
    jpeg_quality: int = Field(92, ge=50, le=100)
    shards: int = Field(2, ge=1, le=1024)


class CaptionConfig(Config):
    """Differential sliding-window captions and their summary (paper section 3.3)."""

    max_tokens_difference: int = Field(160, ge=1)
    max_tokens_summary: int = Field(512, ge=1)
    fast: bool = False
    anchor_every_frames: int | None = None
    anchor_every_s: float | None = None
    max_fallback_share: float = Field(0.2, ge=0, le=1)
    shards: int = Field(2, ge=1, le=1024)


class MixtureConfig(Config):
    """How captions become training samples for the chat model."""

    grid_frames: int = Field(16, ge=1, le=64)
    caption_share: float = Field(0.3, ge=0, le=1)
    question_share: float = Field(0.7, ge=0, le=1)
    max_samples: int = Field(20000, ge=1)
    seed: int = 0


class TrainConfig(Config):
    """Supervised fine-tuning (paper section 4: LoRA on the LLM, own rates for projector and tower)."""

    base_model: str = "builtin:nano-base"
    lora_rank: int = Field(128, ge=1)
    lora_alpha: int = Field(256, ge=1)
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    lr_language: float = Field(2e-4, gt=0)
    lr_projector: float = Field(2e-5, ge=0)
    lr_tower: float = Field(2e-6, ge=0)
    warmup_share: float = Field(0.03, ge=0, lt=1)
    batch_size: int = Field(8, ge=1)
    gradient_accumulation: int = Field(1, ge=1)
    epochs: float = Field(1.0, gt=0)
    max_steps: int | None = None
    max_length: int = Field(6144, ge=16)
    save_every_steps: int = Field(100, ge=1)
    precision: Literal["fp32", "bf16"] = "bf16"
    deepspeed: str | None = None
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    seed: int = 0


class EvaluateConfig(Config):
    """MVBench's reference protocol over a question file."""

    frames: int = Field(16, ge=1, le=64)
    max_tokens: int = Field(32, ge=1)
    limit: int | None = None


class GateConfig(Config):
    """When a candidate may become champion: paired bootstrap over the same questions."""

    bootstrap_samples: int = Field(2000, ge=100)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    task_tolerance: float = Field(0.05, ge=0, le=1)
    seed: int = 0


class EnginesConfig(Config):
    """Which model does what. ``summarizer`` is the captioner where it is None."""

    captioner: EngineSpec = EngineSpec(model_path="builtin:nano-captioner")
    summarizer: EngineSpec | None = EngineSpec(model_path="builtin:nano-summarizer")


class RunConfig(Config):
    engines: EnginesConfig = EnginesConfig()
    probe: ProbeConfig = ProbeConfig()
    brief: BriefConfig = BriefConfig()
    dedup: DedupConfig = DedupConfig()
    keyframes: KeyframeConfig = KeyframeConfig()
    caption: CaptionConfig = CaptionConfig()
    mixture: MixtureConfig = MixtureConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's configuration; ``overrides`` are ``a.b=value`` with YAML values.

    Raises:
        UserError: the file is missing or not YAML, or a key or a value is wrong (named with its path).
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise UserError(
                f"cannot read the configuration: {error.strerror}", where=str(path), fix="check the path"
            ) from error
        except yaml.YAMLError as error:
            raise UserError(
                "the configuration is not YAML", where=str(path), fix=" ".join(str(error).split())
            ) from error
        if not isinstance(tree, dict):
            raise UserError("the configuration is not a mapping", where=str(path), fix="write key: value lines")
    for override in overrides:
        _set(tree, override)
    return parse_config(tree, where=str(path) if path else "--set")


def parse_config(tree: Any, *, where: str) -> RunConfig:
    """Check a configuration tree. Raises UserError naming the first key that is wrong."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"]) or "the configuration"
        if first["type"] == "extra_forbidden":
            parent = _model_at(first["loc"][:-1])
            known = ", ".join(parent.model_fields) if parent else "see the reference"
            raise UserError(
                f"unknown configuration key {key}", where=where, fix=f"known keys here: {known}"
            ) from None
        raise UserError(f"wrong value for {key}: {first['msg']}", where=where, fix="correct it") from None


def _set(tree: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise UserError("not an override", where=override, fix="write --set stage.key=value")
    *parents, leaf = path.split(".")
    node = tree
    for name in parents:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise UserError(f"{name} holds a value, not keys", where=override, fix="shorten the path")
    try:
        node[leaf] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError("the value is not YAML", where=override, fix="quote it") from None


def _model_at(path: Sequence[int | str]) -> type[BaseModel] | None:
    model: type[BaseModel] = RunConfig
    for step in path:
        field = model.model_fields.get(str(step))
        kind = field.annotation if field else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return None
        model = kind
    return model
