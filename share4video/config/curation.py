"""Settings of curation: probe, brief captions, de-duplication, key frames."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from share4video.config.base import Config
from share4video.config.captioning import ChecksConfig


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
    ``checks`` are those of captions, in a run those of ``caption`` unless they are given here; what takes a
    model beside the text is not checked.
    """

    frames: int = Field(4, ge=1, le=64)
    decode: Literal["exact", "nearest-iframe"] = "exact"
    max_tokens: int = Field(64, ge=1)
    embedder: str = "hashing"
    checks: ChecksConfig = ChecksConfig()
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
