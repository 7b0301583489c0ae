"""Aesthetic scores: tiny random weights in the real layouts, held against the sums written out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from share4video.config import AestheticConfig, ProbeConfig
from share4video.curation.aesthetic import AestheticRater
from share4video.curation.encoders import Rgb
from share4video.dataset.shards import Manifest, read_table
from share4video.errors import UserError
from share4video.stages.probe import ProbeInputs, run_stage
from share4video.store import LocalStore
from tests.media.clips import write_clip

pytestmark = pytest.mark.timeout(600)  # importing torch and open_clip alone can take minutes on busy cores
open_clip = pytest.importorskip("open_clip")

SIZES = (16, 12, 8, 6, 4, 1)  # of the improved predictor's layers: 768, 1024, 128, 64, 16, 1


def picture(seed: int) -> Rgb:
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)


def write_head(path: Path, tensors: Mapping[str, Any]) -> str:
    from safetensors.numpy import save_file

    save_file({name: np.asarray(value, np.float32) for name, value in tensors.items()}, path)
    return str(path)


def predictor() -> dict[str, Any]:
    """Weights under the names of the improved predictor, whose dropout takes every other number."""
    rng = np.random.default_rng(0)
    tensors = {}
    for number, (fan_in, fan_out) in zip((0, 2, 4, 6, 7), zip(SIZES, SIZES[1:], strict=False), strict=True):
        tensors[f"layers.{number}.weight"] = rng.normal(0, 0.5, (fan_out, fan_in))
        tensors[f"layers.{number}.bias"] = rng.normal(0, 0.5, fan_out)
    return tensors


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP of random weights, in the file open_clip reads."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    tower = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}
    words = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    shape = {"embed_dim": 16, "vision_cfg": tower, "text_cfg": words, "quick_gelu": True}
    (folder / "tiny-aesthetic-quickgelu.json").write_text(json.dumps(shape))
    open_clip.add_model_config(folder)
    torch.manual_seed(7)
    model = open_clip.create_model("tiny-aesthetic-quickgelu")
    save_file(model.state_dict(), folder / "model.safetensors")
    return f"open_clip:tiny-aesthetic-quickgelu/{folder}/model.safetensors"


def embeddings(encoder: str, frames: list[Rgb]) -> Any:
    """CLIP's own image embeddings, at length 1."""
    import torch

    name, _, weights = encoder.removeprefix("open_clip:").partition("/")
    model, _, prepare = open_clip.create_model_and_transforms(name, pretrained=weights)
    batch = torch.stack([prepare(Image.fromarray(frame)) for frame in frames])
    with torch.inference_mode():
        return model.eval().encode_image(batch, normalize=True).numpy()


def test_a_linear_head(encoder: str, tmp_path: Path) -> None:
    weight = np.random.default_rng(1).normal(0, 1, (1, 16))
    head = write_head(tmp_path / "linear.safetensors", {"weight": weight, "bias": [5.0]})
    frames = [picture(seed) for seed in range(3)]
    expected = (embeddings(encoder, frames) @ weight.T + 5).mean()
    rater = AestheticRater(AestheticConfig(encoder=encoder, head=head))
    assert rater.rate(frames) == pytest.approx(expected, abs=1e-4)
    assert len(rater.revision.rpartition("@")[2]) == 64  # a hash of the weights


def test_the_improved_predictor(encoder: str, tmp_path: Path) -> None:
    tensors = predictor()
    head = write_head(tmp_path / "mlp.safetensors", tensors)
    frames = [picture(5)]
    values = embeddings(encoder, frames)
    for number in (0, 2, 4, 6, 7):
        values = values @ tensors[f"layers.{number}.weight"].T + tensors[f"layers.{number}.bias"]
    rater = AestheticRater(AestheticConfig(encoder=encoder, head=head))
    assert rater.rate(frames) == pytest.approx(values.item(), abs=1e-4)


def test_what_is_no_head(encoder: str, tmp_path: Path) -> None:
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(bytes(range(256)))
    gap = {name: value for name, value in predictor().items() if "layers.4" not in name}
    bad = [
        str(noise),
        write_head(tmp_path / "none.safetensors", {"other": [1.0]}),
        write_head(tmp_path / "gap.safetensors", gap),
        write_head(tmp_path / "wide.safetensors", {"weight": np.ones((2, 16)), "bias": np.ones(2)}),
        write_head(tmp_path / "flat.safetensors", {"weight": np.ones(16), "bias": [1.0]}),
        write_head(tmp_path / "bare.safetensors", {"weight": np.ones((1, 16))}),
    ]
    for head in bad:
        with pytest.raises(UserError, match="no aesthetic head"):
            AestheticRater(AestheticConfig(encoder=encoder, head=head))
    with pytest.raises(UserError, match="aesthetic head"):
        AestheticRater(AestheticConfig(encoder=encoder, head=str(tmp_path / "missing.safetensors")))
    with pytest.raises(UserError, match="unknown encoder"):
        AestheticRater(AestheticConfig(encoder="descriptor", head=bad[0]))


def test_a_head_for_another_encoder(encoder: str, tmp_path: Path) -> None:
    head = write_head(tmp_path / "large.safetensors", {"weight": np.ones((1, 768)), "bias": [0.0]})
    rater = AestheticRater(AestheticConfig(encoder=encoder, head=head))
    with pytest.raises(UserError, match="takes 768 numbers, the encoder gives 16"):
        rater.rate([picture(0)])


def test_scores_are_stored_and_the_bound_is_applied_after(
    encoder: str, tmp_path: Path, store: LocalStore
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, level in (("a.mp4", 60), ("b.mp4", 200)):
        still = np.full((64, 96, 3), level, np.uint8)
        still[20:40, 20:40] = 255 - level
        write_clip(source / name, frames=30, still=still)
    head = write_head(tmp_path / "h.safetensors", {"weight": np.linspace(-3, 3, 16)[None], "bias": [5.0]})
    config = ProbeConfig(
        min_duration_s=1,
        min_height=48,
        max_frozen_share=None,
        aesthetic=AestheticConfig(encoder=encoder, head=head, frames=2),
    )
    assert run_stage(ProbeInputs(str(source)), config, store).rows_out == 2
    (key,) = (key for key in store.list("scan") if key.endswith("manifest.json"))
    manifest = Manifest.model_validate_json(store.get(key))
    scores = read_table(store, manifest.ref, "scans")["aesthetic"].to_pylist()
    assert scores[0] != scores[1]
    weights = encoder.partition("/")[2]
    assert head not in store.get(key).decode() and weights not in store.get(key).decode()  # but their hashes
    shutil.copy(weights, tmp_path / "moved.safetensors")
    shutil.move(head, tmp_path / "moved-head.safetensors")
    elsewhere = AestheticConfig(
        encoder=encoder.replace(weights, str(tmp_path / "moved.safetensors")),
        head=str(tmp_path / "moved-head.safetensors"),
        frames=2,
    )
    config = config.model_copy(update={"aesthetic": elsewhere})
    assert run_stage(ProbeInputs(str(source)), config, store).unchanged

    between = config.model_copy(update={"min_aesthetic": sum(scores) / 2})
    result = run_stage(ProbeInputs(str(source)), between, store)
    assert result.rejects == {"low_aesthetic": 1}
    assert [key for key in store.list("scan") if key.endswith("manifest.json")] == [key]
    (reject,) = read_table(store, result.ref, "rejects").to_pylist()
    assert (reject["measured"], reject["bound"]) == (min(scores), sum(scores) / 2)
