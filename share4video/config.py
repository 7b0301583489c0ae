"""Every number a run uses: one frozen model per stage. `config_file` reads them from YAML."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from share4video.prompt_set import Base, PromptSet


class Config(BaseModel):
    """Base of all configurations: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def without(self, *names: str) -> Self:
        """Return a copy with some settings at their defaults: those that an output does not depend on."""
        return self.model_copy(update={name: type(self).model_fields[name].default for name in names})


class EngineSpec(Config):
    """A model behind the OpenAI chat-completions protocol.

    Exactly one of ``url``, ``model_path`` and ``inference_service`` says where it is: an endpoint that is
    running, a local checkpoint to serve for the time of the stage, or the name of a KServe InferenceService.
    Outputs depend on ``model`` and ``revision`` only, never on where the model ran. A relative
    ``model_path`` or ``builtin:<name>`` (weights shipped with the package) is resolved when it is served, and
    an empty revision of a local checkpoint becomes the hash of its files. ``prompts`` are a person's own,
    over the ``dialect``. ``json_schema``: the engine takes a schema for its answer (``response_format``).
    ``request_timeout_s`` bounds an attempt at a call, ``call_timeout_s`` all of them. Prices are per million
    tokens, in any one currency.
    """

    url: str | None = None
    model_path: str | None = None
    inference_service: str | None = None
    model: str = ""
    revision: str = ""
    dialect: Base = "sharecaptioner"
    prompts: PromptSet | None = None
    json_schema: bool = False
    max_in_flight: int = Field(4, ge=1, le=4096)
    request_timeout_s: float = Field(120.0, gt=0)
    call_timeout_s: float = Field(900.0, gt=0)
    retries: int = Field(4, ge=0, le=20)
    prompt_price: float = Field(0.0, ge=0)
    completion_price: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _one_place(self) -> EngineSpec:
        places = [self.url, self.model_path, self.inference_service]
        if sum(place is not None for place in places) != 1:
            raise ValueError("give exactly one of url, model_path and inference_service")
        if self.prompts is not None and self.prompts.base != self.dialect:
            raise ValueError(f"its prompts are over the dialect {self.prompts.base}, not {self.dialect}")
        return self

    @property
    def wording(self) -> Base | PromptSet:
        """How it is asked: in its own prompts where there are some, else in its dialect."""
        return self.prompts or self.dialect


class AestheticConfig(Config):
    """A model of how much people like a picture: a linear head or an MLP on CLIP's image embedding.

    ``head`` is a ``.safetensors`` file; it was trained on the embeddings of ``encoder``. The score of a clip
    is the mean over ``frames`` uniform frames.
    """

    encoder: str = "open_clip:ViT-L-14-quickgelu/openai"
    head: str
    frames: int = Field(4, ge=1, le=64)


class ScanConfig(Config):
    """What is measured of a source, and within which limits; every row is decoded again where this changes.

    A file whose header says it is longer than ``scan_up_to_s`` is described by its header alone. With
    ``split_scenes`` every frame of the others is decoded to find cuts, and each scene is a clip of its own.
    """

    scan_up_to_s: float = Field(600.0, gt=0)
    max_pixels: int = Field(4096 * 2304, ge=1)
    max_file_bytes: int = Field(4 << 30, ge=1)
    decode_timeout_s: float = Field(60.0, gt=0)
    split_scenes: bool = False
    scene_threshold: float = Field(3.0, gt=0)  # PySceneDetect's own
    min_scene_s: float = Field(0.6, ge=0)
    split_timeout_s: float = Field(1800.0, gt=0)
    aesthetic: AestheticConfig | None = None


class ProbeConfig(ScanConfig):
    """Which sources become clips (paper section 3.1: at most 2 minutes; reference script: at least 10 s).

    Rules are applied to what was measured, so another bound decodes nothing. A bound of None is no rule.
    ``max_failed_share`` bounds the rows that cannot be read or decoded. ``licence`` is that of rows whose
    list names none. ``limit`` takes the first rows by uri; of those ``shard``, i/n, takes one of n parts.
    Tasks work in ``shards`` parts.
    """

    min_duration_s: float = Field(10.0, ge=0)
    max_duration_s: float = Field(120.0, gt=0)
    min_height: int = Field(240, ge=1)
    min_fps: float = Field(5.0, gt=0)
    max_aspect: float = Field(3.0, ge=1)
    max_black_share: float | None = Field(0.8, ge=0, le=1)
    max_single_colour_share: float | None = Field(0.8, ge=0, le=1)
    max_frozen_share: float | None = Field(0.99, ge=0, le=1)
    min_motion: float | None = Field(None, ge=0, le=1)
    max_motion: float | None = Field(None, ge=0, le=1)
    min_aesthetic: float | None = None
    max_failed_share: float = Field(0.5, ge=0, le=1)
    licence: str = "unknown"
    shards: int = Field(1, ge=1, le=1024)
    limit: int | None = Field(None, ge=1)
    shard: str | None = Field(None, pattern=r"^\d{1,6}/\d{1,6}$")

    @property
    def part(self) -> tuple[int, int] | None:
        """``shard`` as numbers: which part, from 1, of how many."""
        if self.shard is None:
            return None
        part, _, parts = self.shard.partition("/")
        return int(part), int(parts)

    @model_validator(mode="before")
    @classmethod
    def _of_all_stages(cls, given: Any) -> Any:
        if isinstance(given, dict) and "allow" in given:
            raise ValueError(
                "what lists may name is no setting of the probe alone: set allow at the top of the"
                " configuration, or give it as lines allow=PREFIX of a pipeline's source"
            )
        return given

    @model_validator(mode="after")
    def _possible(self) -> ProbeConfig:
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise ValueError(f"shard {self.shard} is none: give 1/4 to 4/4 for four shards")
        if self.max_duration_s > self.scan_up_to_s:
            raise ValueError(
                f"max_duration_s {self.max_duration_s:g} is over scan_up_to_s {self.scan_up_to_s:g}:"
                " of longer files only the header is read"
            )
        if self.min_aesthetic is not None and self.aesthetic is None:
            raise ValueError("min_aesthetic needs a model: name its head in aesthetic.head")
        return self


class BriefConfig(Config):
    """One-sentence captions from uniform frames, and their embeddings.

    ``decode: nearest-iframe`` takes the codec key frame nearest to each frame, for a small part of the work.
    """

    frames: int = Field(4, ge=1, le=64)
    decode: Literal["exact", "nearest-iframe"] = "exact"
    max_tokens: int = Field(64, ge=1)
    embedder: str = "hashing"
    max_failed_share: float = Field(0.5, ge=0, le=1)  # of the clips; more fail the stage
    shards: int = Field(1, ge=1, le=1024)


class LooksConfig(Config):
    """How clips are looked at for de-duplication; ``visual_decode`` says with which of their frames."""

    visual_encoder: str = "descriptor-coarse"
    visual_frames: int = Field(16, ge=1, le=256)
    visual_decode: Literal["exact", "nearest-iframe"] = "exact"
    visual_pooling: Literal["least_alike", "mean"] = "least_alike"
    shards: int = Field(1, ge=1, le=1024)


class DedupConfig(LooksConfig):
    """Greedy leader de-duplication (paper section 3.1); the paper does not print its threshold.

    Pairs at least ``floor`` alike are stored, and every threshold above it is replayed from them. Where no
    floor is given it is the lowest one at which a sample promises at most ``pairs_per_row`` pairs per clip.
    ``center_text`` takes the mean of all captions' embeddings off each before they are compared, which
    spreads raw BERT states; it needs a threshold of its own.
    ``source_priority`` ranks near-duplicates of equal size and length: patterns of ``source_uri``, the best
    first.
    """

    mode: Literal["text", "visual", "both"] = "both"
    text_threshold: float | None = Field(None, ge=-1, le=1)  # None: the embedder's own
    center_text: bool = False
    visual_threshold: float | None = Field(None, ge=-1, le=1)  # None: the encoder's own
    floor: float | None = Field(None, ge=-1, le=1)
    pairs_per_row: float = Field(50.0, gt=0)
    max_pairs_per_row: int = Field(1000, ge=1)
    max_failed_share: float = Field(0.5, ge=0, le=1)  # of the clips; more fail the stage
    search: Literal["auto", "exact", "partitioned"] = "auto"
    source_priority: tuple[str, ...] = ()


class KeyframeConfig(Config):
    """Semantic key frames (paper section 3.2: every 2 s, kept below 0.93 to the latest key frame).

    ``mode`` is whose rule holds: the paper's, the released script's (``reference``: by frame number, nothing
    under 10 s, cut at 120 s, the last frame only now and then), or none (``uniform`` keeps every sample and
    compares nothing, so that ``encoder`` and ``threshold`` do not matter). In the paper's mode ``max_gap_s``
    and ``motion_threshold`` (see ``curation.motion`` for its unit; try 0.05) keep further samples. ``decoder:
    decord`` refuses files that are not plain.
    """

    mode: Literal["paper", "reference", "uniform"] = "paper"
    interval_s: float = Field(2.0, gt=0)
    decoder: Literal["pyav", "decord"] = "pyav"
    encoder: str = "descriptor"
    threshold: float | None = Field(None, ge=-1, le=1)  # None: the encoder's own
    max_gap_s: float | None = Field(None, gt=0)
    motion_threshold: float | None = Field(None, gt=0)
    max_side: int = Field(1024, ge=64)
    jpeg_quality: int = Field(92, ge=50, le=100)
    max_failed_share: float = Field(0.5, ge=0, le=1)  # of the clips; more fail the stage
    shards: int = Field(2, ge=1, le=1024)

    @model_validator(mode="after")
    def _triggers_of_the_paper(self) -> KeyframeConfig:
        if self.mode != "paper" and (self.max_gap_s is not None or self.motion_threshold is not None):
            raise ValueError("max_gap_s and motion_threshold need mode paper")
        return self


CheckCode = Literal[
    "truncated",
    "repetition",
    "repeated_ngrams",
    "prompt_leak",
    "refusal",
    "language",
    "time_out_of_range",
    "frame_number",
    "contradiction",
    "summary_contradiction",
    "unsupported_quote",
    "frame_text",
]
Language = Literal["en", "de", "es", "fr", "it", "nl", "pt", "zh", "ja", "ko", "ru", "ar", "hi"]


class ChecksConfig(Config):
    """What a caption is held against; one that fails is asked for once more and then counts as fallback.

    ``off`` are checks that are not made. ``max_repeated_share`` is of the runs of eight words that came
    before, ``max_foreign_share`` of letters in another script, ``time_slack_s`` how far a named time may lie
    outside of what the caption is about. ``frame_text_encoder`` is ``open_clip:ARCHITECTURE[/WEIGHTS]``. The
    ``judge`` rates the captions of a share of the clips, which is drawn by the hash of their ids.
    """

    off: tuple[CheckCode, ...] = ()
    language: Language | None = "en"
    max_foreign_share: float = Field(0.1, ge=0, le=1)
    max_repeated_share: float = Field(0.5, ge=0, le=1)
    time_slack_s: float = Field(1.0, ge=0)
    frame_text_encoder: str | None = None
    min_frame_text_score: float | None = Field(None, ge=-1, le=1)
    judge: EngineSpec | None = None
    judge_share: float = Field(0.05, gt=0, le=1)

    @model_validator(mode="after")
    def _possible(self) -> ChecksConfig:
        if self.min_frame_text_score is not None and self.frame_text_encoder is None:
            raise ValueError("min_frame_text_score needs frame_text_encoder: name a CLIP")
        return self


class CaptionConfig(Config):
    """Differential sliding-window captions and their summary (paper section 3.3).

    ``mode: anchors`` describes a frame in full at a scene cut, and every so many key frames or seconds;
    ``reference`` tells nothing but differences after the first frame. Key frames less alike than
    ``cut_threshold`` belong to two scenes. A difference is told from ``window`` key frames, and knows the one
    before it unless there is no ``memory``. Captions that take more than ``summary_budget_tokens`` are summed
    up in parts, and those again; tokens are estimated from characters, rather too many than too few.
    ``short_prompts`` makes a short generation prompt of every summary, ``structured`` a JSON object of every
    clip's differential captions: one more call a clip for each, of text alone.

    A clip whose calls take more than ``clip_timeout_s`` in all, waits in line not counted, is rejected. No
    further call is made once all answers together cost ``max_cost``, by the engines' prices, or
    ``max_tokens_total`` tokens: the run stops, and one with a larger budget goes on from there.
    """

    mode: Literal["anchors", "reference"] = "anchors"
    max_tokens_difference: int = Field(160, ge=1)
    max_tokens_summary: int = Field(512, ge=1)
    max_tokens_structured: int = Field(1024, ge=1)
    fast: bool = False
    short_prompts: bool = False
    structured: bool = False
    anchor_every_frames: int | None = Field(8, ge=1)
    anchor_every_s: float | None = Field(20.0, gt=0)
    cut_threshold: float | None = Field(None, ge=-1, le=1)  # None: the key frames' encoder's own
    window: int = Field(2, ge=2, le=8)
    memory: bool = True
    summary_budget_tokens: int | None = Field(6144, ge=2048)  # None: no bound
    max_fallback_share: float = Field(0.2, ge=0, le=1)
    clip_timeout_s: float | None = Field(None, gt=0)
    max_cost: float | None = Field(None, gt=0)
    max_tokens_total: int | None = Field(None, ge=1)
    checks: ChecksConfig = ChecksConfig()
    shards: int = Field(2, ge=1, le=1024)

    @model_validator(mode="after")
    def _possible(self) -> CaptionConfig:
        longest = max(self.max_tokens_difference, self.max_tokens_summary)
        if self.summary_budget_tokens is not None and self.summary_budget_tokens < 4 * longest:
            raise ValueError(
                f"summary_budget_tokens {self.summary_budget_tokens} is too little for captions of up to"
                f" {longest} tokens: give at least {4 * longest}"
            )
        return self


class LicenceConfig(Config):
    """``commercial_only`` rejects clips whose licence is not known to allow commercial use.

    ``commercial_licences`` are those that the user has read and found to allow it.
    """

    commercial_only: bool = False
    commercial_licences: tuple[str, ...] = ()


class DatasetConfig(LicenceConfig):
    """The published dataset; ``title`` heads its data card."""

    title: str = "Captioned video clips"


class MixtureConfig(LicenceConfig):
    """How captions become training samples for the chat model (paper section 4: 28K of 181K are captions).

    ``caption_share`` rules which samples go where there are more than ``max_samples``. ``shuffle_captions``
    gives every clip another clip's captions: the control that shows what the captions are worth.
    """

    grid_frames: int = Field(16, ge=1, le=64)
    jpeg_quality: int = Field(95, ge=50, le=100)
    caption_share: float = Field(28 / 181, ge=0, le=1)
    max_samples: int = Field(181_000, ge=1)
    question_writer: Literal["none", "synthetic"] = "none"
    shuffle_captions: bool = False
    clips_per_shard: int = Field(64, ge=1)
    seed: int = 0


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


class EnginesConfig(Config):
    """Which model does what. ``summarizer`` is the captioner where it is None."""

    captioner: EngineSpec = EngineSpec(model_path="builtin:nano-captioner")
    summarizer: EngineSpec | None = EngineSpec(model_path="builtin:nano-summarizer")


class RunConfig(Config):
    """All of a run's configuration: the models, and the numbers of every stage.

    ``allow`` are prefixes that lists may name beside what lies below them. Stages take them with the source.
    """

    allow: tuple[str, ...] = ()
    engines: EnginesConfig = EnginesConfig()
    probe: ProbeConfig = ProbeConfig()
    brief: BriefConfig = BriefConfig()
    dedup: DedupConfig = DedupConfig()
    keyframes: KeyframeConfig = KeyframeConfig()
    caption: CaptionConfig = CaptionConfig()
    dataset: DatasetConfig = DatasetConfig()
    mixture: MixtureConfig = MixtureConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
