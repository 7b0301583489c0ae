"""Files of prompts: what is read, and the one sentence about what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from share4video.config import EngineSpec
from share4video.config_file import parse_config
from share4video.errors import UserError
from share4video.prompt_set import (
    MAX_SET_BYTES,
    PLACEHOLDERS,
    PromptSet,
    RolePrompts,
    fill,
    own_words,
    read_prompts,
)
from tests.engines import picture

EXAMPLE = Path(__file__).parents[1] / "configs" / "prompts" / "wildlife.yaml"


def written(folder: Path, tree: Any) -> Path:
    path = folder / "own.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return path


def example(**fields: Any) -> dict[str, Any]:
    return one("first", user="x", examples=[{"assistant": "a", **fields}])


def one(role: str, **prompt: Any) -> dict[str, Any]:
    return {"name": "mine", "roles": {role: prompt}}


def test_the_shipped_example_is_sound() -> None:
    prompts = read_prompts(EXAMPLE)
    assert (prompts.name, prompts.base) == ("wildlife", "teacher")
    assert set(prompts.roles.given()) == {"first", "difference", "summary"}


def test_every_role_can_be_given() -> None:
    assert set(RolePrompts.model_fields) == set(PLACEHOLDERS)


def test_pictures_travel_with_the_text(tmp_path: Path) -> None:
    (tmp_path / "shots").mkdir()
    (tmp_path / "shots" / "a.jpg").write_bytes(picture("red"))
    example = {"user": "And here?", "images": ["shots/a.jpg"], "assistant": "A red field."}
    prompts = read_prompts(written(tmp_path, one("first", user="Describe it.", examples=[example])))
    (told,) = prompts.roles.given()["first"].examples
    assert told.pictures() == [picture("red")]
    spec = EngineSpec(url="http://host/v1", model="m", dialect="teacher", prompts=prompts)
    assert EngineSpec.model_validate_json(spec.model_dump_json()) == spec
    assert hash(spec) == hash(spec.model_copy())
    assert "shots" not in spec.model_dump_json()


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ("name: [", "the prompts are not YAML"),
        ("- a", "prompts are wrong"),
        ("name: mine\nroles: &all {first: {user: x, system: *all}}", "roles.first.system: "),
        ("{1: 2, name: mine, roles: {first: {user: x}}}", "prompts are wrong"),
        ({"name": "mine", "roles": {}}, "no role has a prompt"),
        ({"name": "mine"}, "roles: Field required"),
        ({"name": "teacher", "roles": {"first": {"user": "x"}}}, "the name teacher is taken"),
        ({"name": "My Prompts", "roles": {"first": {"user": "x"}}}, "name: "),
        ({**one("first", user="x"), "base": "gpt"}, "base: Input should be 'sharecaptioner' or 'teacher'"),
        (one("frist", user="x"), "there is no role frist, known here are brief, fast, first"),
        (one("first", text="x"), "known here are system, user, each, examples"),
        (one("first", system="x"), "roles.first.user: Field required"),
        (one("first", user="{before}"), "an unknown placeholder {before}: known here are {number}, {time_s}"),
        (one("first", user="{number.__class__}"), "roles.first.user has a brace that begins no placeholder"),
        (one("first", user="{"), "write {{ for a brace"),
        (one("difference", user="{number}"), "roles.difference.user lacks {before}"),
        (one("summary", user="notes"), "roles.summary.user lacks {captions}"),
        (one("summary", user="{captions}", each="{time_s}"), "roles.summary.each lacks {caption}"),
        (one("recaption", user="{text}", each="{number}"), "recaption has neither frames nor captions"),
        ({**one("first", user="x", each="{number}"), "base": "sharecaptioner"}, "its frames are one image"),
        (example(), "give a user text or images"),
        (one("first", user="x", examples=[{"user": "u", "assistant": "a"}] * 9), "at most 8 items"),
        (example(user="u", name=1), "known here are user, images, assistant"),
        (example(images=["none.jpg"]), "cannot read a picture of the prompts"),
        (example(images=["own.yaml"]), "a picture of the prompts cannot be read"),
        (example(images=[5]), "Input should be a valid string"),
        (example(user="é" * 15_000, assistant="é" * 15_000), f"at most {MAX_SET_BYTES}: scale"),
        (one("first", user="x" * 20_001), "at most 20000 characters"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, tree: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_prompts(written(tmp_path, tree))
    sentence = caught.value.sentence()
    assert said in sentence
    assert "\n" not in sentence
    assert str(tmp_path) in sentence


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the prompts"):
        read_prompts(tmp_path / "none.yaml")


def test_a_picture_may_not_be_larger_than_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "big.jpg").write_bytes(picture("red") + bytes(MAX_SET_BYTES))
    example = {"images": ["big.jpg"], "assistant": "a"}
    with pytest.raises(UserError, match=r"too large \(.*big\.jpg\): scale it down"):
        read_prompts(written(tmp_path, one("first", user="x", examples=[example])))


def test_an_engine_has_the_dialect_its_prompts_are_over() -> None:
    tree = {"captioner": {"url": "http://host/v1", "prompts": one("first", user="x")}}
    with pytest.raises(UserError, match="its prompts are over the dialect teacher, not sharecaptioner"):
        parse_config({"engines": tree}, where="run.yaml")


names = st.sampled_from(["a", "b", "before"])
parts = st.lists(st.text(alphabet="xy z{}$%\\\n") | names.map(lambda name: f"\0{name}\0"), max_size=8)


@given(parts=parts, values=st.fixed_dictionaries({"a": st.text(), "b": st.text(), "before": st.text()}))
def test_filling_in_is_plain_replacement(parts: list[str], values: dict[str, str]) -> None:
    """Whatever the text and the values hold: braces, dollars, names of placeholders."""
    template, wanted, said = "", "", ""
    for part in parts:
        if part.startswith("\0"):
            template += "{" + part.strip("\0") + "}"
            wanted += values[part.strip("\0")]
        else:
            template += part.replace("{", "{{")
            wanted += part
            said += part.replace("{", "")
    assert fill(template, values) == wanted
    assert "".join(own_words(template)).replace("{", "") == said
    assert PromptSet.model_validate(
        one(
            "recaption",
            user="{text}" + template.replace("{a}", "").replace("{b}", "").replace("{before}", ""),
        )
    )
