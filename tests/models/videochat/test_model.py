"""Tower, Q-Former and projector against transformers' own BLIP-2, and what VideoChat adds to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Blip2Config, Blip2Model, InstructBlipVideoConfig, InstructBlipVideoModel

from share4video.models.loading import load_whole
from share4video.models.videochat.config import VISUAL_TOKEN, VideoChatConfig
from share4video.models.videochat.model import TRAINED, VideoChatForConditionalGeneration
from tests.models.videochat.tiny import EXTRA, QUERIES, SIDE, tiny_config, tiny_model

MODEL = tiny_model()
PLAIN: dict[str, Any] = {
    "gmhra_layers": 0,
    "num_extra_query_tokens": 0,
    "vision_norm_eps": 1e-6,
}  # as BLIP-2 has it


@pytest.fixture(scope="module")
def model() -> VideoChatForConditionalGeneration:
    return tiny_model()


def _frames(count: int, videos: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(videos, count, 3, SIDE, SIDE, generator=generator)


def _blip2(ours: VideoChatForConditionalGeneration) -> Any:
    """Return transformers' model with the weights of ours."""
    config = Blip2Config(
        vision_config=ours.config.vision_config,
        qformer_config=ours.config.qformer_config,
        text_config=ours.config.text_config,
        num_query_tokens=QUERIES,
    )
    theirs = Blip2Model(config).eval()
    names = {"vision_tower.": "vision_model.", "ln_vision.": "vision_model.post_layernorm."}
    names["llama_proj."] = "language_projection."
    weights = {}
    for name, tensor in ours.state_dict().items():
        for our, their in names.items():
            name = name.replace(our, their) if name.startswith(our) else name
        weights[name] = tensor
    weights.pop("extra_query_tokens")
    theirs.load_state_dict(weights)
    return theirs


@torch.inference_mode()
def test_a_picture_gives_what_transformers_blip_2_gives() -> None:
    ours = tiny_model(**PLAIN)
    theirs, picture = _blip2(ours), _frames(1, videos=2)
    features = theirs.get_qformer_features(picture[:, 0])
    expected = theirs.language_projection(getattr(features, "last_hidden_state", features))
    torch.testing.assert_close(ours.visual_features(picture), expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_videos_frames_go_to_the_q_former_together_as_in_instruct_blip_video() -> None:
    ours = tiny_model(**PLAIN)
    theirs, video = _blip2(ours), _frames(3)
    tokens = theirs.vision_model(video[0]).last_hidden_state.flatten(0, 1)[None]
    read = theirs.qformer(query_embeds=theirs.query_tokens, encoder_hidden_states=tokens).last_hidden_state
    expected = theirs.language_projection(read)
    torch.testing.assert_close(ours.visual_features(video), expected, rtol=1e-5, atol=1e-5)
    config: Any = ours.config
    other = InstructBlipVideoConfig(
        vision_config={**config.vision_config.to_dict(), "model_type": "instructblipvideo_vision_model"},
        qformer_config={**config.qformer_config.to_dict(), "model_type": "instructblipvideo_qformer"},
        text_config=config.text_config,
        num_query_tokens=QUERIES,
    )
    tower = InstructBlipVideoModel(other).eval().vision_model
    tower.load_state_dict(theirs.vision_model.state_dict())
    torch.testing.assert_close(tower(video[0]).last_hidden_state.flatten(0, 1)[None], tokens)


@settings(deadline=None, max_examples=10)
@given(frames=st.integers(1, 12))
def test_any_number_of_frames_is_as_many_tokens(frames: int) -> None:
    with torch.inference_mode():
        assert MODEL.visual_features(_frames(frames)).shape == (1, QUERIES + EXTRA, 32)
    assert VideoChatConfig().visual_tokens == 96


@torch.inference_mode()
def test_the_order_of_the_frames_counts_with_aggregators_and_not_without(
    model: VideoChatForConditionalGeneration,
) -> None:
    video = _frames(4)
    turned = video.flip(1)
    assert (model.visual_features(video) - model.visual_features(turned)).abs().max() > 1e-3
    without = tiny_model(gmhra_layers=0)
    torch.testing.assert_close(without.visual_features(video), without.visual_features(turned))


@torch.inference_mode()
def test_a_fresh_aggregator_adds_a_token_that_says_nothing_yet() -> None:
    fresh = VideoChatForConditionalGeneration(tiny_config()).eval()
    assert not fresh.extra_query_tokens.any()
    last = fresh.tower_tokens(_frames(2))[:, -1]
    torch.testing.assert_close(last, fresh.ln_vision.bias.expand_as(last))


@torch.inference_mode()
def test_videos_of_different_lengths_and_pictures_share_a_batch(
    model: VideoChatForConditionalGeneration,
) -> None:
    visuals = [_frames(3)[0], _frames(1, seed=1)[0], _frames(3, seed=2)[0]]
    together = model.features_of(visuals)
    for visual, features in zip(visuals, together, strict=True):
        torch.testing.assert_close(features, model.visual_features(visual[None])[0], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_visual_tokens_stand_where_their_marks_are(model: VideoChatForConditionalGeneration) -> None:
    ids = torch.tensor([[1, *[VISUAL_TOKEN] * (QUERIES + EXTRA), 5]])
    features = model.visual_features(_frames(2))
    embeds = model.embed(ids, features)
    assert torch.equal(embeds[0, 1:-1], features[0])
    assert torch.equal(embeds[0, [0, -1]], model.get_input_embeddings()(torch.tensor([1, 5])))
    with pytest.raises(ValueError, match="12 places for 0"):
        model.embed(ids, None)
    with pytest.raises(ValueError, match="12 places for 24"):
        model.embed(ids, features.repeat(2, 1, 1))


def test_training_leaves_the_frozen_q_former_without_dropout() -> None:
    model = tiny_model().train()
    assert not model.qformer.training and not model.vision_tower.training
    assert model.gmhra.training and model.language_model.training


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_is_saved_and_loaded_whole(tmp_path: Path, tied: bool, dtype: torch.dtype) -> None:
    text = {**tiny_config().text_config.to_dict(), "tie_word_embeddings": tied}  # type: ignore[union-attr]
    model = tiny_model(text_config=text)
    model.save_pretrained(tmp_path)
    loaded = load_whole(VideoChatForConditionalGeneration, tmp_path, dtype=dtype, fix="").eval()
    formats = {name.partition(".")[0]: p.dtype for name, p in loaded.named_parameters()}
    assert {formats.pop(part) for part in ("language_model", "vision_tower")} == {dtype}
    assert set(formats.values()) == {torch.float32}  # what is trained, and the Q-Former
    assert loaded.dtype == dtype
    video = _frames(2)
    with torch.inference_mode():
        expected, found = model.visual_features(video), loaded.visual_features(video.to(dtype))
    close = {"rtol": 0.0, "atol": 0.0} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.1}
    torch.testing.assert_close(found, expected, **close)
    loaded.save_pretrained(tmp_path / "again")
    assert VideoChatConfig.from_pretrained(tmp_path / "again").dtype == dtype


def test_another_language_model_takes_llamas_place() -> None:
    text = {
        "model_type": "qwen2",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 50,
    }
    model = tiny_model(text_config=text)
    ids = torch.tensor([[1, *[VISUAL_TOKEN] * (QUERIES + EXTRA), 5]])
    assert model(input_ids=ids, visuals=[_frames(2)[0]]).logits.shape == (1, QUERIES + EXTRA + 2, 50)


def test_the_parts_that_are_trained_are_all_there(model: VideoChatForConditionalGeneration) -> None:
    parts = {name.partition(".")[0] for name, _ in model.named_parameters()}
    assert parts - set(TRAINED) == {"vision_tower", "qformer", "query_tokens", "language_model"}
    assert set(TRAINED) <= parts


def test_more_aggregators_than_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="the tower has 3 layers"):
        tiny_config(gmhra_layers=4)
