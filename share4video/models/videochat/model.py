"""VideoChat: what a frozen tower and Q-Former say of a video, projected into a frozen language model.

Built of transformers' BLIP-2 parts. The Q-Former is `Blip2QFormerModel`, which takes queries alone:
InstructBLIP's takes the question's text beside them, and VideoChat's first version does not.

Shapes: B rows, S tokens, V videos or pictures, T frames, N tokens of a frame, Q queries, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Blip2QFormerModel,
    Blip2VisionModel,
    PreTrainedModel,
    initialization,
)

from share4video.models.videochat.config import VISUAL_TOKEN, VideoChatConfig
from share4video.models.videochat.gmhra import GlobalRelationAggregator

# What VideoChat trains; everything else stays as its makers published it.
TRAINED = ("extra_query_tokens", "ln_vision", "gmhra", "gmhra_token", "llama_proj")


class VideoChatForConditionalGeneration(PreTrainedModel):
    """The whole model. Its trained parts and its Q-Former stay in float32 whatever the rest is held in."""

    config: VideoChatConfig
    config_class = VideoChatConfig
    base_model_prefix = "videochat"
    main_input_name = "input_ids"
    input_modalities = ["video", "image", "text"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["Blip2EncoderLayer"]  # noqa: RUF012  # as transformers declares it
    _keep_in_fp32_modules_strict = ["qformer", "query_tokens", *TRAINED]  # noqa: RUF012

    def __init__(self, config: VideoChatConfig) -> None:
        super().__init__(config)
        vision: Any = config.vision_config
        qformer: Any = config.qformer_config
        text: Any = config.text_config
        self.vision_tower = Blip2VisionModel._from_config(vision)
        # One norm for the frames' tokens and the aggregator's, and with another epsilon than the tower's own.
        self.vision_tower.post_layernorm = nn.Identity()
        self.ln_vision = nn.LayerNorm(vision.hidden_size, eps=config.vision_norm_eps)
        self.gmhra_token = (
            nn.Parameter(torch.zeros(1, 1, vision.hidden_size)) if config.gmhra_layers else None
        )
        self.gmhra = nn.ModuleList(
            GlobalRelationAggregator(
                vision.hidden_size,
                vision.num_attention_heads,
                vision.intermediate_size,
                config.gmhra_dropout,
            )
            for _ in range(config.gmhra_layers)
        )
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, qformer.hidden_size))
        self.extra_query_tokens = nn.Parameter(
            torch.zeros(1, config.num_extra_query_tokens, qformer.hidden_size)
        )
        self.qformer = Blip2QFormerModel._from_config(qformer)
        self.llama_proj = nn.Linear(qformer.hidden_size, text.hidden_size)
        self.language_model = AutoModelForCausalLM.from_config(text)
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise what is VideoChat's own, as the reference does: the aggregator begins by adding nothing.

        The tower, the Q-Former and the language model initialise themselves. transformers passes over a
        module without parameters of its own, so the aggregator's layers are seen to from here.
        """
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if not isinstance(module, VideoChatForConditionalGeneration):
            return
        initialization.normal_(module.query_tokens, mean=0.0, std=self.config.initializer_range)
        initialization.zeros_(module.extra_query_tokens)
        if module.gmhra_token is not None:
            initialization.zeros_(module.gmhra_token)
        layers: Any = module.gmhra
        for layer in layers:
            initialization.xavier_uniform_(layer.attn.in_proj_weight)
            initialization.zeros_(layer.attn.in_proj_bias)
            initialization.xavier_uniform_(layer.mlp["c_fc"].weight)
            for zeroed in (layer.attn.out_proj, layer.mlp["c_proj"]):
                initialization.zeros_(zeroed.weight)
                initialization.zeros_(zeroed.bias)

    def train(self, mode: bool = True) -> VideoChatForConditionalGeneration:
        """Switch to training, except for what never learns: a frozen Q-Former drops nothing out either."""
        super().train(mode)
        self.vision_tower.eval()
        self.qformer.eval()
        return self

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the language model, which a saved configuration names."""
        found: torch.dtype = self.language_model.dtype
        return found

    def get_input_embeddings(self) -> nn.Module:
        embeddings: nn.Module = self.language_model.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        head: nn.Module = self.language_model.get_output_embeddings()
        return head

    def tower_tokens(self, frames_VTCHW: torch.Tensor) -> torch.Tensor:
        """Return what the Q-Former reads: all frames' tokens and, last, the aggregator's; (V, T N + 1, D)."""
        count, frames = frames_VTCHW.shape[:2]
        hidden = self.vision_tower.embeddings(frames_VTCHW.flatten(0, 1))
        layers = self.vision_tower.encoder.layers
        token = None if self.gmhra_token is None else self.gmhra_token.expand(count, -1, -1)
        for number, layer in enumerate(layers, start=len(self.gmhra) - len(layers)):
            hidden = layer(hidden)
            if number >= 0 and token is not None:
                seen = hidden.unflatten(0, (count, frames)).to(token.dtype)
                token = self.gmhra[number](token, seen)
        tokens = hidden.unflatten(0, (count, frames)).flatten(1, 2).to(self.ln_vision.weight.dtype)
        if token is not None:
            tokens = torch.cat([tokens, token], dim=1)
        normed: torch.Tensor = self.ln_vision(tokens)
        return normed

    def visual_features(self, frames_VTCHW: torch.Tensor) -> torch.Tensor:
        """Return videos, or pictures as videos of one frame, as the language model sees them: (V, Q, D).

        All frames of a video go to the Q-Former together, so there are as many tokens whatever T is.
        """
        queries = torch.cat([self.query_tokens, self.extra_query_tokens], dim=1)
        output = self.qformer(
            query_embeds=queries.expand(frames_VTCHW.shape[0], -1, -1),
            encoder_hidden_states=self.tower_tokens(frames_VTCHW),
        )
        projected: torch.Tensor = self.llama_proj(output.last_hidden_state)
        return projected

    def embed(self, input_ids_BS: torch.Tensor, features_VQD: torch.Tensor | None) -> torch.Tensor:
        """Return the language model's input, (B, S, D): ``VISUAL_TOKEN`` stands where a feature goes.

        Raises:
            ValueError: there are not as many places as features.
        """
        places_BS = input_ids_BS == VISUAL_TOKEN
        embeds_BSD: torch.Tensor = self.get_input_embeddings()(input_ids_BS.masked_fill(places_BS, 0))
        given = 0 if features_VQD is None else features_VQD.shape[0] * features_VQD.shape[1]
        if int(places_BS.sum()) != given:
            raise ValueError(f"{int(places_BS.sum())} places for {given} visual tokens")
        if features_VQD is None:
            return embeds_BSD
        return embeds_BSD.masked_scatter(places_BS[..., None], features_VQD.to(embeds_BSD.dtype))

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        visuals: Sequence[torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the language model over text and visuals.

        Args:
            input_ids: (B, S), with ``VISUAL_TOKEN`` in the places of visual tokens.
            visuals: each (T, C, H, W), in the order of their places; videos of any length and pictures
                (T = 1) side by side.
            **kwargs: go to the language model, such as ``labels``, ``logits_to_keep`` and ``use_cache``.

        Raises:
            ValueError: there are not as many places as visuals.
        """
        features = self.features_of(visuals) if visuals else None
        embeds = self.embed(input_ids, features)
        return self.language_model(inputs_embeds=embeds, attention_mask=attention_mask, **kwargs)

    def features_of(self, visuals: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return `visual_features` of videos of different lengths, (V, Q, D); equal lengths run together."""
        found: list[torch.Tensor | None] = [None] * len(visuals)
        for frames in sorted({len(visual) for visual in visuals}):
            places = [place for place, visual in enumerate(visuals) if len(visual) == frames]
            together = self.visual_features(torch.stack([visuals[place] for place in places]))
            for place, features in zip(places, together, strict=True):
                found[place] = features
        return torch.stack([features for features in found if features is not None])
