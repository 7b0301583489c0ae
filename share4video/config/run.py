"""All of a run's settings."""

from __future__ import annotations

from pydantic import model_validator

from share4video.config.base import Config
from share4video.config.captioning import CaptionConfig
from share4video.config.curation import BriefConfig, DedupConfig, KeyframeConfig, ProbeConfig
from share4video.config.datasets import DatasetConfig, MixtureConfig
from share4video.config.engines import EnginesConfig
from share4video.config.training import EvaluateConfig, GateConfig, TrainConfig
from share4video.config.videochat import VideoChatTrainConfig


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
    videochat: VideoChatTrainConfig = VideoChatTrainConfig()

    @model_validator(mode="after")
    def _brief_captions_are_captions(self) -> RunConfig:
        if "checks" not in self.brief.model_fields_set:
            brief = self.brief.model_copy(update={"checks": self.caption.checks.of_text()})
            object.__setattr__(self, "brief", brief)
        return self
