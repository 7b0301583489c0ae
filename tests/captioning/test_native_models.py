"""The captioner's roles on models as their makers publish them, behind a real ``transformers serve``.

The weights are random, so answers say nothing; that they are the ones transformers itself gives for these
pictures in this order says that everything arrived. One server for the whole file.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image
from typer.testing import CliRunner

from share4video.captioning.engine import (
    ENDPOINTS_VARIABLE,
    ChatRequest,
    Completion,
    answer_all,
    connect,
    shared_server,
)
from share4video.captioning.model_server import SERVER_VARIABLE
from share4video.captioning.roles import Fast, First, KeyFrame, Message, RoleInput, messages, prompt_version
from share4video.cli.main import app
from share4video.config import CaptionConfig, EngineSpec
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.stages.caption import run_stage
from share4video.store import LocalStore
from share4video.wording import TileBudgets
from share4video.work import WORK_VARIABLE
from tests.captioning.test_roles import ADDED, INPUTS
from tests.engines import picture
from tests.media.clips import write_clip
from tests.native_models import NATIVE, llava_next
from tests.stages.caption_material import frame_rows, inputs_of, rows_of

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


def alone(folder: Path, conversation: Sequence[Message], max_tokens: int = TOKENS) -> tuple[int, str]:
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
        made = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)[0, count:]
    return count, processor.decode(made, skip_special_tokens=True)


def without_tokens(text: str) -> str:
    """Return an answer without special tokens, of which the server leaves some in a Qwen model's."""
    return re.sub(r"<\|\w+\|>", "", text).strip()


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
        assert without_tokens(answer.text) == text.strip(), role


@pytest.mark.parametrize("name", NATIVE)
def test_frames_reach_the_model_in_their_order(models: dict[str, Path], name: str) -> None:
    """Answers say so: each is the one for its order, and orders differ in theirs."""
    spec = EngineSpec(model_path=str(models[name]), dialect="teacher", retries=0)
    asked = {}
    for order in permutations(("red", "lime", "blue", "white")):
        shots = tuple(KeyFrame(n, 2.0 * n, picture(colour)) for n, colour in enumerate(order))
        asked[" ".join(order)] = messages(spec.wording, Fast(shots))
    some = dict(list(asked.items())[::8])
    with connect(spec) as endpoint:
        answers = answer_all(endpoint, {n: (lambda turns=t: ChatRequest(turns, 16)) for n, t in some.items()})
    said = {
        order: without_tokens(answer.text)
        for order, answer in answers.items()
        if isinstance(answer, Completion)
    }
    assert said == {order: alone(models[name], turns, 16)[1].strip() for order, turns in some.items()}
    assert len(set(said.values())) > 1


CONFIG = CaptionConfig(
    max_tokens_difference=8,
    max_tokens_summary=8,
    max_tokens_structured=8,
    max_fallback_share=1.0,
    shards=1,
    fast=True,
)
LENGTHS = [2, 1, 3]


@pytest.mark.parametrize(
    ("name", "dialect", "share"),
    [("qwen3-vl", "teacher", 1.0), ("llava-next", "teacher", 1.0), ("smolvlm", "sharecaptioner", 0.2)],
)
def test_a_run_answers_for_every_clip(
    models: dict[str, Path],
    name: str,
    dialect: Literal["sharecaptioner", "teacher"],
    share: float,
    store: LocalStore,
) -> None:
    """Noise passes no check: captions are flagged, and with too many flagged frames a clip is rejected."""
    spec = EngineSpec(model_path=str(models[name]), dialect=dialect, retries=0)
    derived = {"short_prompts": True, "structured": True} if dialect == "teacher" else {}
    config = CONFIG.model_copy(update={"max_fallback_share": share, **derived})
    result = run_stage(inputs_of(store, spec, lengths=LENGTHS, parts=1), config, store)
    rejects = rows_of(store, result, "rejects")
    assert result.rows_in == 3 == result.rows_out + len(rejects)
    assert all(row["reason"] == "caption_failed" and row["sentence"] for row in rejects)
    differentials = rows_of(store, result, "differentials")
    captioned = {row["clip_id"] for row in differentials}
    assert len(captioned) == result.rows_out
    for row in differentials:
        if row["index"] == 0 and row["caption"]:
            jpeg = frame_rows(int(row["clip_id"][-2:]), 1)[0]["jpeg"]
            sent = messages(spec.wording, First(KeyFrame(1, 0.0, jpeg)))
            assert row["prompt_tokens"] == alone(models[name], sent, 1)[0]
    roles = {row["role"] for row in rows_of(store, result, "captions")}
    expected = {"summary", "fast", *(("prompt", "structured") if derived else ())}
    assert roles == (expected if captioned else set())
    assert bool(captioned) == (share == 1.0) or name == "qwen3-vl"


def test_a_template_that_takes_no_system_message_is_noticed_and_what_helps_is_said(
    models: dict[str, Path], store: LocalStore
) -> None:
    spec = EngineSpec(model_path=str(models[UNTOLD]), dialect="teacher", retries=0)
    with pytest.raises(UserError, match="must alternate") as caught:
        run_stage(inputs_of(store, spec, lengths=[4, 4], parts=1), CONFIG, store)
    assert "refuses every request" in caught.value.what
    assert "system_message: false" in caught.value.fix
    told = spec.model_copy(update={"system_message": False})
    result = run_stage(inputs_of(store, told, lengths=[2], parts=1), CONFIG, store)
    rows = rows_of(store, result, "differentials")
    assert {row["prompt_version"] for row in rows} <= {prompt_version(told.wording)}


def test_a_clip_is_captioned_from_the_command_line(models: dict[str, Path], tmp_path: Path) -> None:
    """A preset, a folder of one's own, and a film: its clip is captioned, or rejected with a reason."""
    write_clip(tmp_path / "film.mp4", frames=60)
    settings = [
        f"engines.captioner.model_path={models['llava-next']}",
        "probe.min_duration_s=1",
        "probe.min_height=48",
        "brief.max_tokens=8",
        "caption.max_tokens_difference=8",
        "caption.max_tokens_summary=8",
        "caption.max_fallback_share=1",
        "caption.fast=true",
    ]
    options = [word for setting in settings for word in ("--set", setting)]
    store = LocalStore(tmp_path / "store")
    given = [
        "caption",
        str(tmp_path / "film.mp4"),
        "--engine",
        "llava-next-captioner",
        "--store",
        str(store.root),
    ]
    done = CliRunner().invoke(app, [*given, *options])
    assert done.exit_code == 0, done.output
    refs = dict(line.split() for line in done.stdout.splitlines() if line.startswith(("captions", "dataset")))
    ref = StageRef.parse(refs["captions"])
    rows = [row for table in ("captions", "rejects") for row in read_table(store, ref, table).to_pylist()]
    assert rows
    for row in rows:
        if "reason" in row:
            assert row["sentence"]
        else:
            assert row["prompt_version"] == "sharecaptioner-1+tiles-fast16-sliding9"
            assert row["prompt_tokens"] > 0
