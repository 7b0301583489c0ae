"""Pictures of whole tiles: what is sent, what it costs a LLaVA-NeXT model, and which models take it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from share4video.captioning.engine import resolve
from share4video.captioning.roles import (
    Brief,
    Difference,
    Fast,
    First,
    KeyFrame,
    RoleInput,
    Summary,
    Window,
    leaks,
    messages,
    prompt_name,
    prompt_version,
)
from share4video.captioning.tiles import pinpoints, visual_tokens
from share4video.config import EngineSpec
from share4video.errors import UserError
from share4video.media.compose import hd_grids, hd_size
from share4video.prompt_set import PromptSet
from share4video.wording import Adapted, TileBudgets
from tests.captioning.test_roles import CAPTIONS, images_of, size_of
from tests.engines import picture
from tests.native_models import build_tokenizer, llava_next_chatml

RELEASED = TileBudgets()
TRAINING = TileBudgets(fast=55, sliding=25)
SENT = Adapted(words="sharecaptioner", tiles=RELEASED)


def frames(count: int, size: tuple[int, int]) -> tuple[KeyFrame, ...]:
    image = picture("red", size)
    return tuple(KeyFrame(n + 1, 2.0 * n, image) for n in range(count))


def asked(role: str, count: int, size: tuple[int, int]) -> RoleInput:
    shots = frames(count, size)
    match role:
        case "first":
            return First(shots[0])
        case "difference":
            return Difference(shots[0], shots[-1], "x")
        case "fast":
            return Fast(shots)
        case "brief":
            return Brief(shots)
        case _:
            return Window(shots, "x")


ROLES = {"first": 9, "difference": 9, "fast": 16, "brief": 16, "window": 16}
sides = st.integers(16, 700)


@settings(max_examples=40, deadline=None)
@given(role=st.sampled_from(list(ROLES)), count=st.integers(2, 9), size=st.tuples(sides, sides))
@example(role="fast", count=9, size=(90, 700))
@example(role="difference", count=2, size=(16, 700))
@example(role="first", count=2, size=(700, 16))
def test_no_picture_costs_more_tiles_than_its_roles_budget(
    role: str, count: int, size: tuple[int, int]
) -> None:
    given = asked(role, count, size)
    (plain,), (sent,) = (images_of(messages(words, given)[0]) for words in ("sharecaptioner", SENT))
    width, height = size_of(sent)
    assert width % 336 == height % 336 == 0
    assert (width // 336) * (height // 336) <= ROLES[role]
    assert [height, width] in pinpoints(RELEASED)
    assert (width, height) == hd_size(*size_of(plain), ROLES[role])


def test_the_sizes_sent_are_the_released_codes(data_root: Path) -> None:
    golden = json.loads((data_root / "golden" / "composition.json").read_text())["hd_transform"]
    for case in golden:
        budgets = TileBudgets(fast=case["hd_num"], sliding=case["hd_num"])
        (shown,) = frames(1, tuple(case["in_wh"]))
        words = Adapted(words="sharecaptioner", tiles=budgets)
        (image,) = images_of(messages(words, First(shown))[0])
        assert list(size_of(image)) == case["out_wh"]
        assert case["out_wh"][::-1] in pinpoints(budgets)


@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    hd_num=st.sampled_from((1, 2, 3, 9, 16, 25, 55)),
)
def test_the_grids_are_all_that_can_be_sent(width: int, height: int, hd_num: int) -> None:
    wide, tall = hd_size(width, height, hd_num)
    assert (wide // 336, tall // 336) in hd_grids(hd_num)


@pytest.mark.parametrize("hd_num", [9, 16, 25, 55])
def test_every_grid_can_be_sent(hd_num: int) -> None:
    for columns, rows in hd_grids(hd_num):
        wide, tall = hd_size(336 * columns, 336 * rows, hd_num)
        assert (wide, tall) == (336 * columns, 336 * rows)


@pytest.mark.parametrize("tiles", [RELEASED, TRAINING])
def test_the_real_processor_takes_the_picture_as_it_is_sent(tiles: TileBudgets) -> None:
    """Its tiles and its tokens are those that are told beforehand, for every grid."""
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    images = LlavaNextImageProcessor(
        size={"shortest_edge": 336},
        crop_size={"height": 336, "width": 336},
        image_grid_pinpoints=pinpoints(tiles),
    )
    counting = LlavaNextProcessor(
        image_processor=images,
        tokenizer=build_tokenizer("<image>"),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    sizes = pinpoints(tiles)
    counted = counting._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
    told = [visual_tokens(width // 336, height // 336) for height, width in sizes]
    assert counted == told
    for height, width in sizes[:: 1 + len(sizes) // 8]:
        pixels = images(Image.new("RGB", (width, height), "red"), return_tensors="pt")["pixel_values"]
        assert pixels.shape[1] == 1 + (height // 336) * (width // 336)


def test_the_most_a_picture_of_the_released_budgets_costs() -> None:
    most = {n: max(visual_tokens(*grid) for grid in hd_grids(n)) for n in (9, 16)}
    assert most == {9: 5976, 16: 10176}


def test_the_budgets_are_part_of_the_version_and_of_nothing_else() -> None:
    assert prompt_version(SENT) == "sharecaptioner-1+tiles-fast16-sliding9"
    siglip = TileBudgets(side=384)
    assert prompt_version(SENT.model_copy(update={"tiles": siglip})).endswith("-sliding9-side384")
    assert prompt_name(SENT) == "sharecaptioner"
    assert leaks(SENT) == leaks("sharecaptioner")
    assert messages(SENT, Summary(CAPTIONS)) == messages("sharecaptioner", Summary(CAPTIONS))


def test_without_budgets_nothing_changes() -> None:
    spec = EngineSpec(url="http://host/v1", model="m")
    assert spec.wording == "sharecaptioner"
    assert prompt_version(spec.wording) == "sharecaptioner-1"


def test_a_dialect_without_a_system_message_is_the_same_for_a_model_that_takes_none() -> None:
    untold: dict[str, Any] = {"url": "http://host/v1", "model": "m", "system_message": False}
    assert EngineSpec(**untold).wording == "sharecaptioner"
    assert EngineSpec(**untold, tiles=RELEASED).wording == SENT
    own = PromptSet.model_validate(
        {"name": "own", "base": "sharecaptioner", "roles": {"first": {"system": "Short.", "user": "Tell."}}}
    )
    assert prompt_version(EngineSpec(**untold, prompts=own).wording) == prompt_version(own) + "+nosystem"
    assert prompt_version(EngineSpec(**untold, dialect="teacher").wording).endswith("+nosystem")


def test_own_prompts_are_shown_the_same_tiles() -> None:
    own = PromptSet.model_validate(
        {"name": "own", "base": "sharecaptioner", "roles": {"first": {"user": "Describe it."}}}
    )
    (shown,) = frames(1, (640, 360))
    words = Adapted(words=own, tiles=RELEASED)
    (image,) = images_of(messages(words, First(shown))[-1])
    assert size_of(image) == (1008, 672)
    assert prompt_version(words) == prompt_version(own) + "+tiles-fast16-sliding9"


def test_pictures_of_examples_are_whole_tiles_within_the_roles_budget() -> None:
    shown = base64.b64encode(picture("blue", (640, 360))).decode()
    example = {"images": [shown], "assistant": "A blue wall."}
    roles = {role: {"user": "Describe it.", "examples": [example]} for role in ("first", "fast")}
    own = PromptSet.model_validate({"name": "own", "base": "sharecaptioner", "roles": roles})
    words = Adapted(words=own, tiles=RELEASED)
    for role, most in ((asked("first", 1, (64, 64)), 9), (asked("fast", 3, (64, 64)), 16)):
        (plain,) = images_of(messages(own, role)[0])
        (sent,) = images_of(messages(words, role)[0])
        assert size_of(plain) == (640, 360)
        assert size_of(sent) == hd_size(640, 360, most)
    assert prompt_version(words) == prompt_version(own) + "+tiles-fast16-sliding9-examples"


def test_budgets_are_for_the_dialect_of_one_picture() -> None:
    with pytest.raises(ValueError, match="tiles are for the dialect that shows one picture, not for teacher"):
        EngineSpec(url="http://host/v1", model="m", dialect="teacher", tiles=RELEASED)


@pytest.fixture(scope="module")
def llava_next(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava_next_chatml(tmp_path_factory.mktemp("models") / "llava-next")


def spec(folder: Path, tiles: TileBudgets = RELEASED) -> EngineSpec:
    return EngineSpec(model_path=str(folder), tiles=tiles)


def write_grids(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    module = "share4video.models.llava_next.tile_grids"
    return subprocess.run(
        [sys.executable, "-m", module, str(folder), *options], capture_output=True, text=True
    )


def test_a_model_that_does_not_list_the_grids_is_refused_and_can_be_given_them(
    llava_next: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llava_next, folder)
    before = resolve(spec(folder)).revision
    with pytest.raises(UserError, match=r"lists 12 of the \d+ grids that 55 and 25 tiles need") as caught:
        resolve(spec(folder, TRAINING))
    assert "tile_grids" in caught.value.fix
    done = write_grids(folder, "--fast", "55", "--sliding", "25")
    assert (done.returncode, done.stderr) == (0, "")
    assert resolve(spec(folder, TRAINING)).revision != before
    resolve(spec(folder))  # what it listed is still there
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]


def test_the_processor_must_list_them_too(llava_next: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llava_next, folder)
    file = folder / "processor_config.json"
    fields: dict[str, Any] = json.loads(file.read_text())
    fields["image_processor"]["image_grid_pinpoints"] = [[336, 672], [672, 336]]
    file.write_text(json.dumps(fields))
    with pytest.raises(UserError, match="grids") as caught:
        resolve(spec(folder))
    assert caught.value.where == str(file)


def test_tiles_of_another_size_are_refused(llava_next: Path) -> None:
    with pytest.raises(UserError, match=r"sides of 336 pixels, not 384 .*: set side: 336"):
        resolve(spec(llava_next, TileBudgets(side=384)))


def test_only_llava_next_has_grids(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoints["captioner"], folder)
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "model_type": "qwen3_vl"}))
    resolve(spec(folder))
    done = write_grids(folder)
    assert done.returncode == 2
    assert "a qwen3_vl model has no grids" in done.stderr


def test_the_gateway_asks_in_the_same_form() -> None:
    from serving.gateway.captioner import _endpoint
    from serving.gateway.settings import GatewaySettings

    given: dict[str, Any] = {"upstream_url": "http://host/v1", "role": "captioner"}
    settings = GatewaySettings(**given, tiles={"fast": 55, "sliding": 25}, system_message=False)
    asked = _endpoint(settings, settings.upstream_url, "m").spec.wording
    assert prompt_version(asked) == "sharecaptioner-1+tiles-fast55-sliding25"
    untold = GatewaySettings(**given, dialect="teacher", system_message=False)
    assert prompt_version(_endpoint(untold, "http://h/v1", "m").spec.wording).endswith("+nosystem")
    assert prompt_version(_endpoint(GatewaySettings(**given), "http://h/v1", "m").spec.wording) == (
        "sharecaptioner-1"
    )
    with pytest.raises(ValueError, match="which shows one picture"):
        GatewaySettings(**given, dialect="teacher", tiles={"fast": 16})


def test_the_page_names_the_versions() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "roles.md").read_text()
    untold = Adapted(words="teacher", system_message=False)
    assert all(f"`{prompt_version(words)}`" in page for words in (SENT, untold))
    assert "10,176 for 16 tiles and 5,976 for 9" in page
