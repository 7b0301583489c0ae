"""A VideoChat folder out of the files it is published in."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from share4video.cli.main import app
from share4video.models.chat_session import Decoding, Runtime, load_chat_model
from share4video.models.videochat.model import TRAINED, VideoChatForConditionalGeneration
from tests.media.clips import write_clip
from tests.models.videochat.released_names import released_weights
from tests.models.videochat.tiny import tiny_config, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def model() -> VideoChatForConditionalGeneration:
    made = tiny_model()
    for layer in made.vision_tower.encoder.layers:  # keys have no bias in the released tower
        layer.self_attn.qkv.bias.data.view(3, -1)[1] = 0
    return made


@pytest.fixture(scope="module")
def files(
    model: VideoChatForConditionalGeneration, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The parts as they are published: EVA's tower, BLIP-2's Q-Former, VideoChat's own, and a LLaMA."""
    folder = tmp_path_factory.mktemp("released")
    released = released_weights(model)
    trained = {"llama_proj", "extra_query_tokens", "ln_vision"}
    mine = {n: t for n, t in released.items() if "gmhra" in n or n.partition(".")[0] in trained}
    tower = {
        name.removeprefix("visual_encoder."): tensor
        for name, tensor in released.items()
        if name.startswith("visual_encoder.") and "gmhra" not in name
    }
    blip2 = {n: t for n, t in released.items() if n.startswith("Qformer.") or n == "query_tokens"}
    beside = {
        "ln_vision.weight": torch.zeros(32),
        "ln_vision.bias": torch.zeros(32),
        "t5_proj.bias": torch.zeros(2),
    }
    torch.save(tower, folder / "eva_vit_g.pth")
    torch.save({"model": {**blip2, **beside}}, folder / "blip2.pth")
    torch.save({"model": mine}, folder / "videochat.pth")
    text: Any = tiny_config().text_config
    language_model = LlamaForCausalLM(LlamaConfig(**text.to_dict()))
    language_model.load_state_dict(model.language_model.state_dict())
    language_model.save_pretrained(folder / "llama")
    tiny_tokenizer().save_pretrained(folder / "llama")
    architecture = {k: v for k, v in tiny_config().to_dict().items() if k not in ("text_config", "dtype")}
    (folder / "architecture.json").write_text(json.dumps(architecture))
    names = ("eva_vit_g.pth", "blip2.pth", "videochat.pth", "llama", "architecture.json")
    return {name.partition(".")[0]: folder / name for name in names}


def _convert(files: dict[str, Path], out: Path, *parts: str, dtype: str = "float32") -> Any:
    arguments = ["--language-model", files["llama"], "--architecture", files["architecture"]]
    for part in parts:
        arguments += ["--weights", files.get(part, Path(part))]
    command = ["videochat", "convert", *arguments, "--dtype", dtype, "-o", out]
    return CliRunner().invoke(app, [str(word) for word in command])


def test_the_published_parts_make_the_model_they_were_taken_from(
    model: VideoChatForConditionalGeneration, files: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "model"
    done = _convert(files, out, "eva_vit_g", "blip2", "videochat")
    assert done.exit_code == 0, done.stderr
    assert "to be trained" not in done.stderr
    written = load_file(out / "model.safetensors")
    expected = model.state_dict()
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)
    chat = load_chat_model(out, Runtime())
    session = chat.open(write_clip(tmp_path / "clip.mp4", frames=12))
    assert list(session.ask("What is it?", Decoding(max_tokens=4)))


def test_without_videochats_own_file_its_parts_begin_as_stage_1_does(
    files: dict[str, Path], tmp_path: Path
) -> None:
    done = _convert(files, tmp_path / "model", "eva_vit_g", "blip2")
    assert done.exit_code == 0, done.stderr
    # BLIP-2's file holds the norm.
    assert "to be trained: extra_query_tokens, gmhra, gmhra_token, llama_proj" in done.stderr
    written = load_file(tmp_path / "model" / "model.safetensors")
    assert not written["extra_query_tokens"].any() and not written["gmhra.0.mlp.c_proj.weight"].any()
    assert written["llama_proj.weight"].std() > 0.01
    assert {name.partition(".")[0] for name in written} >= set(TRAINED)


def test_what_does_not_fit_is_said(files: dict[str, Path], tmp_path: Path) -> None:
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps(print))
    half = tmp_path / "half.safetensors"
    save_file({"llama_proj.weight": torch.zeros(32, 24)}, half)
    wide = tmp_path / "wide.safetensors"
    save_file({"llama_proj.weight": torch.zeros(3, 4), "llama_proj.bias": torch.zeros(32)}, wide)
    for parts, sentence in (
        (["blip2", "videochat"], "weights are missing"),
        (["eva_vit_g", "blip2", str(evil)], "the weights are no plain tensors"),
        (["eva_vit_g", "blip2", str(tmp_path / "none.pth")], "the weights cannot be read"),
        (["eva_vit_g", "blip2", str(half)], "the files hold a part of llama_proj"),
        (["eva_vit_g", "blip2", "videochat", str(wide)], "of another shape"),
    ):
        found = _convert(files, tmp_path / "model", *parts)
        assert found.exit_code == 2 and sentence in found.stderr, found.stderr
        assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"\xff" * 64])
def test_a_language_model_with_damaged_weights_is_one_sentence(
    files: dict[str, Path], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    broken = shutil.copytree(files["llama"], tmp_path / "llama")
    weights = broken / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    found = _convert({**files, "llama": broken}, tmp_path / "model", "eva_vit_g", "blip2", "videochat")
    assert found.exit_code == 2 and "the language model cannot be loaded" in found.stderr, found.stderr


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gmhra_layers": 99}, "gmhra_layers is 99, and the tower has 3 layers"),
        ({"vision_config": 3}, "the settings make no VideoChat"),
        ({"vision_config": {"num_attention_heads": 0}}, "the settings make no VideoChat"),
        ({"num_query_tokens": "x"}, "num_query_tokens is 'x', and not a whole number"),
        ({"nonsense": 1}, "VideoChat has no such setting (--architecture, nonsense)"),
        ({"gmhra_layer": 1}, "did you mean gmhra_layers"),
        ({"vision_config": {"image_sise": 28}}, "did you mean vision_config.image_size"),
    ],
)
def test_settings_that_make_no_model_are_one_sentence(
    files: dict[str, Path], tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    settings = json.loads(files["architecture"].read_text())
    (tmp_path / "settings.json").write_text(json.dumps({**settings, **change}))
    found = _convert({**files, "architecture": tmp_path / "settings.json"}, tmp_path / "model", "eva_vit_g")
    assert found.exit_code == 2 and "Traceback" not in found.stderr
    assert sentence in found.stderr


def test_a_language_model_whose_weights_do_not_fit_is_said(files: dict[str, Path], tmp_path: Path) -> None:
    other = shutil.copytree(files["llama"], tmp_path / "llama")
    config = json.loads((other / "config.json").read_text())
    layers = config["num_hidden_layers"] + 1
    (other / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))
    found = _convert({**files, "llama": other}, tmp_path / "model", "eva_vit_g", "blip2", "videochat")
    assert found.exit_code == 2
    assert "the language model's weights do not fit its architecture: 9 missing (" in found.stderr
    assert "of a delta, apply it first" in found.stderr


def test_files_of_old_and_the_number_format_that_each_part_is_kept_in(
    model: VideoChatForConditionalGeneration, files: dict[str, Path], tmp_path: Path
) -> None:
    old = tmp_path / "eva_vit_g.pth"
    tower = torch.load(files["eva_vit_g"], weights_only=True)
    torch.save(tower, old, _use_new_zipfile_serialization=False)
    done = _convert(
        {**files, "eva_vit_g": old}, tmp_path / "model", "eva_vit_g", "blip2", "videochat", dtype="bfloat16"
    )
    assert done.exit_code == 0, done.stderr
    written = load_file(tmp_path / "model" / "model.safetensors")
    exact = {name.partition(".")[0] for name, tensor in written.items() if tensor.dtype == torch.float32}
    assert exact == {*TRAINED, "qformer", "query_tokens"}
    expected = model.state_dict()
    for name, tensor in written.items():
        wanted = torch.float32 if name.partition(".")[0] in exact else torch.bfloat16
        assert tensor.dtype == wanted and torch.equal(tensor, expected[name].to(wanted)), name
