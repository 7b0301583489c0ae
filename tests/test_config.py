"""Configurations: the presets, and what their models refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from share4video.config import ChecksConfig, EngineSpec, MixtureConfig, ProbeConfig, RunConfig
from share4video.config_file import load_config, parse_config
from share4video.errors import UserError
from share4video.stages.task import parse_stage_config

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("name", ["paper", "laptop", "cluster", "video_llava"])
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


def test_a_mixture_is_named_after_the_settings_that_its_visual_depends_on() -> None:
    """A mixture of grids keeps the name it had before there were strips of frames."""
    assert MixtureConfig(strip_frames=4).model_dump(mode="json") == {
        "commercial_only": False,
        "commercial_licences": [],
        "grid_frames": 16,
        "jpeg_quality": 95,
        "caption_share": 28 / 181,
        "max_samples": 181_000,
        "question_writer": "none",
        "shuffle_captions": False,
        "clips_per_shard": 64,
        "seed": 0,
    }
    strips = MixtureConfig(visual="frames", grid_frames=4)
    assert strips.model_dump_json() == MixtureConfig(visual="frames").model_dump_json()
    assert strips.model_dump_json() != MixtureConfig(visual="frames", strip_frames=4).model_dump_json()
    assert MixtureConfig.model_validate_json(strips.model_dump_json()) == MixtureConfig(visual="frames")


def test_what_lists_may_name_is_said_once_for_all_stages() -> None:
    """The probe's own settings do not reach the stages that read its clips later."""
    assert parse_config({"allow": ["s3://clips/"]}, where="").allow == ("s3://clips/",)
    said = "what lists may name is no setting of the probe alone: set allow at the top"
    with pytest.raises(UserError, match=said):
        parse_config({"probe": {"allow": ["s3://clips/"]}}, where="run.yaml")
    with pytest.raises(UserError, match=f"^wrong configuration: {said}"):
        parse_stage_config(ProbeConfig, '{"allow": []}')


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


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().train.seed = 2  # type: ignore[misc]


def test_an_engine_is_in_one_place() -> None:
    assert EngineSpec(url="http://host/v1").model_path is None
    with pytest.raises(ValidationError, match="exactly one"):
        EngineSpec()


def test_brief_captions_are_held_against_the_checks_of_captions_unless_they_have_their_own() -> None:
    judge = {"url": "http://h/v1", "model": "m"}
    run = RunConfig.model_validate({"caption": {"checks": {"language": "zh", "judge": judge}}})
    assert run.brief.checks == ChecksConfig(language="zh")
    assert RunConfig.model_validate_json(run.model_dump_json()) == run
    own = {"brief": {"checks": {"language": "de"}}, "caption": {"checks": {"language": "zh"}}}
    assert RunConfig.model_validate(own).brief.checks == ChecksConfig(language="de")
