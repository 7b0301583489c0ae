"""``--engine`` and ``--prompts``: settings hold a preset's fields and a file's text, not their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from serving.legacy_captioner.__main__ import _options
from share4video.captioning.roles import prompt_version
from share4video.cli.engines import engine_presets
from share4video.cli.main import app
from share4video.cli.options import read_settings
from share4video.config import EngineSpec
from share4video.errors import UserError
from tests.serving.upstream_host import upstream_host

CONFIGS = Path(__file__).parents[2] / "configs"
PRESETS = engine_presets(CONFIGS / "engines.yaml")
WILDLIFE = CONFIGS / "prompts" / "wildlife.yaml"
PLACE = "engines.captioner.url=http://host/v1"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_an_engine_once_its_place_is_known(name: str) -> None:
    engines = read_settings("paper", [PLACE], engine=name).engines
    preset = PRESETS[name]
    assert engines.captioner == EngineSpec(url="http://host/v1", **preset.engine)
    assert engines.summarizer is None
    assert engines.captioner.revision == ""  # whoever serves the weights knows which they are
    if name == "sharecaptioner-video":
        assert preset.serve is not None
        legacy = _options(preset.serve.removeprefix("python -m serving.legacy_captioner ").split())
        assert legacy.name == preset.engine["model"]
    elif preset.serve is not None:
        assert preset.serve.split()[:3] == ["vllm", "serve", preset.engine["model"]]
        assert f"--max-model-len {preset.context_length}" in preset.serve


def test_the_classes_of_cards_are_there() -> None:
    families = {name.partition("-")[0]: set[int | None]() for name in PRESETS}
    for name, preset in PRESETS.items():
        families[name.partition("-")[0]].add(preset.memory_gb)
    assert families["qwen3"] == families["internvl3.5"] == {8, 24, 80}


def test_a_preset_can_stand_in_a_configuration(tmp_path: Path) -> None:
    """For the summarizer, too; what stands beside it wins."""
    tree = {
        "captioner": {"preset": "qwen3-vl-4b", "inference_service": "captioner", "max_in_flight": 3},
        "summarizer": {"preset": "hosted-api", "url": "http://host/v1", "model": "words"},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"engines": tree}))
    engines = read_settings(str(tmp_path / "run.yaml"), ["engines.captioner.revision=abc"]).engines
    captioner, summarizer = engines.captioner, engines.summarizer
    assert (captioner.model, captioner.revision) == ("Qwen/Qwen3-VL-4B-Instruct", "abc")
    assert (captioner.inference_service, captioner.max_in_flight) == ("captioner", 3)
    assert summarizer is not None
    assert (summarizer.model, summarizer.dialect, summarizer.retries) == ("words", "teacher", 8)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engine": "qwen3-vl-8"}, "there is no engine qwen3-vl-8"),
        ({"engine": "qwen3-vl-8"}, "did you mean qwen3-vl-8b? known are qwen3-vl-2b, "),
        ({"engine": "qwen3-vl-8b"}, "the preset qwen3-vl-8b does not say where the model runs"),
        ({"prompts": WILDLIFE}, "know no other prompts than their own"),
        (
            {"engine": "sharecaptioner-video", "prompts": WILDLIFE, "overrides": [PLACE]},
            "set the file's base",
        ),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_settings(None, given.pop("overrides", None), **given)
    assert said in str(caught.value)


def test_prompts_are_for_every_engine_that_is_named(tmp_path: Path) -> None:
    captioner = "engines.captioner={url: 'http://host/v1', model: a}"
    summarizer = "engines.summarizer={url: 'http://host/v1', model: b}"
    engines = read_settings(None, [captioner, summarizer], prompts=WILDLIFE).engines
    assert engines.summarizer is not None
    for spec in (engines.captioner, engines.summarizer):
        assert (spec.dialect, spec.prompts and spec.prompts.name) == ("teacher", "wildlife")
        assert str(WILDLIFE) not in spec.model_dump_json()
    # What a task on another machine is given is all there is to know.
    again = EngineSpec.model_validate_json(engines.captioner.model_dump_json())
    assert prompt_version(again.wording) == prompt_version(engines.captioner.wording)


def test_one_engine_can_have_prompts_of_its_own(tmp_path: Path) -> None:
    own = f"engines.captioner={{url: 'http://host/v1', model: a, prompts: {WILDLIFE}}}"
    engines = read_settings(None, [own, "engines.summarizer=null"]).engines
    assert engines.captioner.prompts is not None


def test_a_verb_asks_in_the_prompts_it_was_given(tmp_path: Path) -> None:
    prompts = {"name": "terse", "roles": {"recaption": {"system": "Be terse.", "user": "Expand: {text}"}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(prompts))
    with upstream_host() as upstream:
        place = f"engines.captioner.url={upstream.base_url}"
        options = ["--engine", "hosted-api", "--prompts", str(tmp_path / "own.yaml"), "--set", place]
        run = CliRunner().invoke(app, ["recaption", "a dog", *options, "--set", "engines.captioner.model=m"])
        assert run.exit_code == 0, run.output
        (body,) = upstream.seen
    assert body["messages"][0] == {"role": "system", "content": "Be terse."}
    assert body["messages"][1]["content"][0]["text"] == "Expand: a dog"
    assert json.loads(run.stdout)["prompt"] == "a dog"
