"""Settings of captioning, and of what captions are held against."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from share4video.config.base import Config
from share4video.config.engines import EngineSpec

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

    def of_text(self) -> Self:
        """Return the checks that take no more than the text, no model."""
        return self.without("frame_text_encoder", "min_frame_text_score", "judge", "judge_share")

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
