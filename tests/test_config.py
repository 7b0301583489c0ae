"""Configurations: YAML and overrides in, one frozen model out, and a sentence where something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from share4video.config import EngineSpec, RunConfig, load_config, parse_config
from share4video.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"


def test_no_file_means_the_defaults() -> None:
    assert load_config(None) == RunConfig()
    assert parse_config({}, where="") == RunConfig()


@pytest.mark.parametrize("name", ["paper", "laptop", "cluster"])
def test_the_presets_load_and_survive_a_dump(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.yaml")
    assert parse_config(config.model_dump(mode="json"), where="dump") == config


def test_the_papers_numbers() -> None:
    paper = load_config(CONFIGS / "paper.yaml")
    assert (paper.probe.max_duration_s, paper.keyframes.interval_s, paper.keyframes.threshold) == (
        120,
        2,
        0.93,
    )
    train = paper.train
    assert (train.lora_rank, train.lora_alpha, train.lora_dropout) == (128, 256, 0.05)
    assert (train.lr_language, train.lr_projector, train.lr_tower) == (2e-4, 2e-5, 2e-6)
    assert (train.batch_size, train.epochs, train.max_length, train.warmup_share) == (128, 1, 6144, 0.03)
    assert (paper.mixture.grid_frames, paper.mixture.max_samples) == (16, 181_000)
    assert round(paper.mixture.caption_share * 181) == 28


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        ({"max_duration_s": 900}, "max_duration_s 900 is over scan_up_to_s 600: of longer files only the"),
        ({"min_aesthetic": 5}, "min_aesthetic needs a model: name its head in aesthetic.head"),
    ],
)
def test_a_rule_needs_what_it_is_applied_to(probe: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_config({"probe": probe}, where="run.yaml")
    assert parse_config({"probe": {"max_duration_s": 900, "scan_up_to_s": 900}}, where="")


def test_the_laptop_asks_for_nothing_but_the_package() -> None:
    laptop = load_config(CONFIGS / "laptop.yaml")
    for engine in (laptop.engines.captioner, laptop.engines.summarizer):
        assert engine is None or str(engine.model_path).startswith("builtin:")
    assert laptop.train.base_model.startswith("builtin:")
    assert (laptop.keyframes.encoder, laptop.brief.embedder) == ("descriptor", "hashing")
    assert laptop.train.precision == "fp32"


def test_overrides_win_and_are_yaml(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("train: {epochs: 2, seed: 1}\n")
    overrides = ["train.epochs=3", "keyframes.threshold=0.9", "engines.summarizer=null", "caption.fast=true"]
    config = load_config(path, overrides)
    assert (config.train.epochs, config.train.seed) == (3, 1)
    assert config.keyframes.threshold == 0.9
    assert config.engines.summarizer is None
    assert config.caption.fast
    assert load_config(None, ["dataset.title='2024-13-45'"]).dataset.title == "2024-13-45"
    assert (
        load_config(None, ["engines.captioner.url=http://host/v1"]).engines.captioner.url == "http://host/v1"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "not a mapping"),
        ("a: [", "not YAML"),
        ("dataset: {title: 2024-13-45}\n", "not YAML"),
        ("train: {epoch: 1}\n", "unknown configuration key train.epoch"),
        ("trian: {}\n", "did you mean train?"),
        ("engines: {summarizer: {modelpath: a}}\n", "did you mean model_path?"),
        ("train: {epochs: many}\n", "wrong value for train.epochs"),
        ("train: {epochs: .inf}\n", "wrong value for train.epochs"),
        ("train: 5\n", "wrong value for train"),
        ("keyframes: {threshold: 1.5}\n", "less than or equal to 1"),
        ("engines: {captioner: {url: a, model_path: b}}\n", "exactly one of url, model_path"),
        ("engines: {captioner: {}}\n", "exactly one of url, model_path"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert said in str(caught.value)
    assert caught.value.where == str(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the configuration.*missing\.yaml"):
        load_config(tmp_path / "missing.yaml")
    with pytest.raises(UserError, match="cannot read the configuration"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="not YAML"):
        load_config(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs", "not an override"),
        ("=3", "not an override"),
        ("train.epochs.more=3", "holds a value"),
        ("train.epochs=[", "not YAML"),
        ("dataset.title=2024-13-45", "not YAML (dataset.title=2024-13-45): quote it"),
        ("dataset.title=!!timestamp soon", "not YAML"),
        ("dataset.title=!!bool perhaps", "not YAML"),
        ("dataset.title=!!int ''", "not YAML"),
        (f"dataset.title={'1' * 5000}", "not YAML"),
        (f"dataset.title={'[' * 5000}", "not YAML"),
        ("train.epoch=3", "did you mean epochs?"),
        ("..=1", "unknown configuration key"),
    ],
)
def test_an_override_that_is_wrong_is_named(override: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(None, ["train.epochs=1", override])
    assert said in str(caught.value)


@given(st.text())
def test_an_override_is_taken_or_refused_in_a_sentence(override: str) -> None:
    said = "."
    try:
        load_config(None, [override])
    except UserError as error:
        said = error.sentence()
    assert said.endswith(".")


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().train.seed = 2  # type: ignore[misc]


def test_an_engine_is_in_one_place() -> None:
    assert EngineSpec(url="http://host/v1").model_path is None
    with pytest.raises(ValidationError, match="exactly one"):
        EngineSpec()
