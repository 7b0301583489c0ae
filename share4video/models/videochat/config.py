"""VideoChat's architecture in numbers; the defaults are those of the released 7B and 13B checkpoints."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, Blip2QFormerConfig, Blip2VisionConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

MODEL_TYPE = "videochat"
VISUAL_TOKEN = -200  # stands for a visual token among token ids; no vocabulary has it
_LOWEST = {"num_query_tokens": 1, "num_extra_query_tokens": 0, "gmhra_layers": 0, "frames": 1}


@strict
class VideoChatConfig(PreTrainedConfig):
    """A vision tower, a Q-Former and a language model.

    Attributes:
        vision_config: EVA-CLIP g/14 as BLIP-2 uses it.
        qformer_config: BERT-base with cross-attention in every second layer; it reads no text.
        text_config: any causal language model, LLaMA by default.
        num_query_tokens: BLIP-2's queries.
        num_extra_query_tokens: VideoChat's own, which are trained. Both together are what the language model
            sees of a video, whatever its number of frames.
        gmhra_layers: the tower's last layers that a global relation aggregator (GMHRA, of UniFormerV2) reads;
            0 leaves it out, and the order of the frames then changes nothing.
        gmhra_dropout: in the aggregator's MLP, while it is trained.
        vision_norm_eps: of the layer norm between tower and Q-Former.
        frames: of a video, unless a runtime says otherwise.
    """

    model_type = MODEL_TYPE
    sub_configs_defaults = {  # noqa: RUF012  # as transformers declares it
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
        "vision_config": SubConfigSpec(config_class=Blip2VisionConfig),
        "qformer_config": SubConfigSpec(config_class=Blip2QFormerConfig),
    }

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    qformer_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    num_query_tokens: int = 32
    num_extra_query_tokens: int = 64
    gmhra_layers: int = 8
    gmhra_dropout: float = 0.5
    vision_norm_eps: float = 1e-5
    frames: int = 8
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        """Raises ValueError where a number is none, or the parts do not fit each other."""
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        for name, lowest in _LOWEST.items():  # `strict` cannot read annotations that are put off
            value = getattr(self, name)
            if type(value) is not int or value < lowest:
                raise ValueError(f"{name} is {value!r}, and not a whole number of at least {lowest}")
        vision: Any = self.vision_config
        qformer: Any = self.qformer_config
        qformer.encoder_hidden_size = vision.hidden_size
        if not 0 <= self.gmhra_layers <= vision.num_hidden_layers:
            raise ValueError(
                f"gmhra_layers is {self.gmhra_layers}, and the tower has {vision.num_hidden_layers} layers"
            )

    @property
    def visual_tokens(self) -> int:
        """How many tokens of the language model a video or a picture is."""
        return self.num_query_tokens + self.num_extra_query_tokens


AutoConfig.register(MODEL_TYPE, VideoChatConfig, exist_ok=True)  # for tokenizers, which look it up by folder
