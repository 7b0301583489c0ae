"""YAML and overrides in, a sentence where something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.config import RunConfig
from share4video.config_file import load_config, parse_config
from share4video.errors import UserError


def test_no_file_means_the_defaults() -> None:
    assert load_config(None) == RunConfig()
    assert parse_config({}, where="") == RunConfig()


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


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["train.seed=2", "train.epochs=many"], "--set train.epochs=many"),
        (["train.epochs=1", "train.epochs=many"], "--set train.epochs=many"),
        (["train={epochs: many}"], "--set train={epochs: many}"),
        (["train.epoch=1"], "--set train.epoch=1"),
        (
            ["engines.captioner.url=http://host/v1"],
            "run.yaml with --set engines.captioner.url=http://host/v1",
        ),
        (["train.seed=2", "keyframes.threshold=0.5"], "run.yaml"),
    ],
)
def test_what_is_wrong_is_where_it_was_set(tmp_path: Path, overrides: list[str], where: str) -> None:
    path = tmp_path / "run.yaml"
    wrong = "train: {seed: soon}\n" if "seed" not in overrides[0] else "train: {epochs: many}\n"
    right = "engines: {captioner: {model_path: a}}\n"
    path.write_text(wrong if where == "run.yaml" else right)
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    assert caught.value.where == where.replace("run.yaml", str(path))


@given(st.text())
def test_an_override_is_taken_or_refused_in_a_sentence(override: str) -> None:
    said = "."
    try:
        load_config(None, [override])
    except UserError as error:
        said = error.sentence()
    assert said.endswith(".")
