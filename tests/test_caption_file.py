"""Captions of one file: which models may caption it together, and what the refusal advises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from share4video.caption_file import caption_clip
from share4video.captioning.domain_guard import REAL_MODELS
from share4video.cli.options import read_settings
from share4video.config import EngineSpec
from share4video.errors import UserError
from tests.serving.clips import write_noise

SMALL = EngineSpec(model_path="builtin:nano-summarizer")
ELSEWHERE = EngineSpec(url="http://127.0.0.1:9/v1", model="big")


@pytest.mark.parametrize("engines", [(ELSEWHERE, SMALL), (SMALL, ELSEWHERE)])
def test_models_of_two_worlds_do_not_caption_together(
    tmp_path: Path, engines: tuple[EngineSpec, EngineSpec]
) -> None:
    clip = write_noise(tmp_path / "clip.mp4")
    with pytest.raises(UserError, match=r"nano-summarizer knows only the synthetic clips.*and big takes any"):
        caption_clip(clip, ["sliding", "summary"], *engines)


def test_small_models_refuse_other_clips(tmp_path: Path) -> None:
    clip = write_noise(tmp_path / "clip.mp4")
    with pytest.raises(UserError, match="nano-summarizer knows only") as caught:
        caption_clip(clip, ["sliding", "summary"], SMALL, SMALL)
    assert caught.value.where == str(clip)


@pytest.mark.parametrize("preset", re.findall(r"--config (\w+)", REAL_MODELS))
def test_the_advice_names_settings_that_hold(preset: str) -> None:
    (override,) = re.findall(r"--set ([^,]+),", REAL_MODELS)
    (engine,) = re.findall(r"--engine ([^,]+),", REAL_MODELS)
    engines = read_settings(preset, [override], engine=engine).engines
    assert (engines.captioner.url, engines.captioner.dialect) == ("http://HOST:8000/v1", "teacher")
    assert engines.captioner.model == "Qwen/Qwen3-VL-8B-Instruct"
    assert engines.summarizer is None  # the nano one would be asked otherwise
    assert read_settings(preset).engines.captioner.model_path is None
