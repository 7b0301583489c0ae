"""The captioner's roles on models as their makers publish them, behind a real ``transformers serve``.

The weights are random, so answers say nothing; that they are the ones transformers itself gives for these
pictures in this order says that everything arrived. One server for the whole file.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from share4video.captioning.engine import (
    ENDPOINTS_VARIABLE,
    ChatRequest,
    Completion,
    answer_all,
    connect,
    shared_server,
)
from share4video.captioning.model_server import SERVER_VARIABLE
from share4video.captioning.roles import Message, RoleInput, messages
from share4video.config import EngineSpec
from share4video.wording import TileBudgets
from share4video.work import WORK_VARIABLE
from tests.captioning.test_roles import ADDED, INPUTS
from tests.native_models import NATIVE, llava_next

TOKENS = 5
EVERY_ROLE: dict[str, RoleInput] = {**INPUTS, **ADDED}
UNTOLD = "llava-next-untold"  # its template takes no system message


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: build(root / name) for name, build in (NATIVE | {UNTOLD: llava_next}).items()}


@pytest.fixture(scope="module")
def served(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which `connect` finds a server of all the models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(WORK_VARIABLE, str(tmp_path_factory.mktemp("work")))
        for name in (ENDPOINTS_VARIABLE, SERVER_VARIABLE):
            patch.delenv(name, raising=False)
        with shared_server([EngineSpec(model_path=str(folder)) for folder in models.values()]):
            yield {name: os.environ[name] for name in (ENDPOINTS_VARIABLE, SERVER_VARIABLE)}


@pytest.fixture(autouse=True)
def _found(served: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in served.items():
        monkeypatch.setenv(name, value)


@cache
def parts_of(folder: Path) -> tuple[Any, Any]:
    """Return a checkpoint's model and processor, loaded by transformers without us."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from share4video.models.transformers_server import spell_no_numbers

    spell_no_numbers()
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def alone(folder: Path, conversation: Sequence[Message]) -> tuple[int, str]:
    """Return the prompt's tokens and the answer as transformers has them, without a server."""
    import torch

    model, processor = parts_of(folder)
    inputs = processor.apply_chat_template(
        [{"role": turn["role"], "content": _parts(turn["content"])} for turn in conversation],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    count = inputs["input_ids"].shape[1]
    with torch.no_grad():
        made = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)[0, count:]
    return count, processor.decode(made, skip_special_tokens=True)


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [
        part
        if part["type"] == "text"
        else {"type": "image", "image": _picture(part["image_url"]["url"].partition(",")[2])}
        for part in content
    ]


def _picture(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def roles_of(spec: EngineSpec) -> dict[str, list[Message]]:
    """Return the messages of every role that the engine's prompts have."""
    asked = {}
    for role, given in EVERY_ROLE.items():
        if spec.dialect == "teacher" or role not in ("prompt", "structured"):
            asked[role] = messages(spec.wording, given)
    return asked


SPECS = [
    *((name, {"dialect": dialect}) for name in NATIVE for dialect in ("teacher", "sharecaptioner")),
    (UNTOLD, {"dialect": "sharecaptioner"}),
    (UNTOLD, {"dialect": "teacher", "system_message": False}),
    ("llava-next", {"dialect": "sharecaptioner", "tiles": TileBudgets()}),
]


@pytest.mark.parametrize(("name", "fields"), SPECS, ids=lambda value: str(value)[:60])
def test_every_role_reaches_the_model_as_transformers_would_have_it(
    models: dict[str, Path], name: str, fields: dict[str, Any]
) -> None:
    spec = EngineSpec(model_path=str(models[name]), retries=0, **fields)
    asked = roles_of(spec)
    requests = {role: (lambda turns=turns: ChatRequest(turns, TOKENS)) for role, turns in asked.items()}
    with connect(spec) as endpoint:
        answers = answer_all(endpoint, requests)
    for role, turns in asked.items():
        answer = answers[role]
        assert isinstance(answer, Completion), (role, answer)
        count, text = alone(models[name], turns)
        assert answer.prompt_tokens == count, role
        assert answer.completion_tokens == TOKENS
        assert answer.text.strip() == text.strip(), role
