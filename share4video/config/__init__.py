"""Every number a run uses: one frozen model per stage, read from YAML, overridden with ``--set a.b=c``."""

from __future__ import annotations

from share4video.config.base import Config
from share4video.config.captioning import CaptionConfig, CheckCode, ChecksConfig, Language
from share4video.config.curation import (
    AestheticConfig,
    BriefConfig,
    DedupConfig,
    KeyframeConfig,
    LooksConfig,
    ProbeConfig,
    ScanConfig,
)
from share4video.config.datasets import DatasetConfig, LicenceConfig, MixtureConfig
from share4video.config.engines import EnginesConfig, EngineSpec
from share4video.config.run import RunConfig
from share4video.config.training import EvaluateConfig, GateConfig, TrainConfig
from share4video.config.videochat import (
    VideoChatAlignConfig,
    VideoChatInstructConfig,
    VideoChatTrainConfig,
)

__all__ = [
    "AestheticConfig",
    "BriefConfig",
    "CaptionConfig",
    "CheckCode",
    "ChecksConfig",
    "Config",
    "DatasetConfig",
    "DedupConfig",
    "EngineSpec",
    "EnginesConfig",
    "EvaluateConfig",
    "GateConfig",
    "KeyframeConfig",
    "Language",
    "LicenceConfig",
    "LooksConfig",
    "MixtureConfig",
    "ProbeConfig",
    "RunConfig",
    "ScanConfig",
    "TrainConfig",
    "VideoChatAlignConfig",
    "VideoChatInstructConfig",
    "VideoChatTrainConfig",
]
