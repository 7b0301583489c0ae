"""Settings of the published dataset and of the training mixture."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from share4video.config.base import Config


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
    gives every clip another clip's captions: the control that shows what the captions are worth. ``visual``
    says what stands for a clip: a ``grid`` of ``grid_frames`` frames in one picture, for models that see
    pictures, or ``strip_frames`` ``frames``, for Video-LLaVA.
    """

    visual: Literal["grid", "frames"] = "grid"
    strip_frames: int = Field(8, ge=1, le=64)
    grid_frames: int = Field(16, ge=1, le=64)
    jpeg_quality: int = Field(95, ge=50, le=100)
    caption_share: float = Field(28 / 181, ge=0, le=1)
    max_samples: int = Field(181_000, ge=1)
    question_writer: Literal["none", "synthetic"] = "none"
    shuffle_captions: bool = False
    clips_per_shard: int = Field(64, ge=1)
    seed: int = 0

    @model_serializer(mode="wrap")
    def _settings_that_count(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what this kind of visual does not depend on: outputs are named after the dump.

        A grid's dump is what it was before there was another visual, so that mixtures keep their names.
        """
        unused = {"visual", "strip_frames"} if self.visual == "grid" else {"grid_frames"}
        settings: dict[str, Any] = dump(self)
        return {name: value for name, value in settings.items() if name not in unused}
