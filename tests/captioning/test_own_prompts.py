"""A person's own prompts as messages, and under which name their captions are published."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from share4video.captioning.checks import PROMPT_LEAK, CheckContext, failed_checks
from share4video.captioning.roles import (
    Difference,
    Fast,
    First,
    Recaption,
    RoleInput,
    ShortPrompt,
    Structured,
    Summary,
    TimedCaption,
    leaks,
    messages,
    prompt_name,
    prompt_version,
    require_role,
)
from share4video.config import EngineSpec
from share4video.errors import UserError
from share4video.prompt_set import PLACEHOLDERS, PromptSet
from tests.captioning.test_roles import ADDED, FRAMES, INPUTS, images_of, size_of, text_of
from tests.engines import picture


def own(base: str = "teacher", **roles: Any) -> PromptSet:
    return PromptSet.model_validate({"name": "mine", "base": base, "roles": roles})


@pytest.mark.parametrize("role", PLACEHOLDERS)
def test_every_placeholder_has_something_to_stand_for(role: str) -> None:
    """All that is documented can be filled in, and nothing of it is left in what is sent."""
    known = PLACEHOLDERS[role]  # type: ignore[index]
    prompt = {"user": " | ".join(f"<{name}={{{name}}}>" for name in known.known)}
    if known.each:
        prompt["each"] = ",".join(f"{name}:{{{name}}}" for name in known.each)
    *_, user = messages(own(**{role: prompt}), (INPUTS | ADDED)[role])
    said = text_of(user)
    assert all(f"<{name}=" in said for name in known.known)
    assert "{" not in said and "}" not in said


def test_what_is_filled_in_is_what_the_frames_say() -> None:
    user = "{previous_number}@{previous_time_s} {number}@{time_s}: {before} {{number}"
    (_, sent) = messages(own(difference={"user": user}), Difference(FRAMES[1], FRAMES[3], "{number} balls"))
    *_, text = sent["content"]
    assert text["text"] == "2@2.50 4@7.50: {number} balls {number}"
    summary = own(summary={"user": "{count}\n{captions}", "each": "{time_s}/{number} {caption}"})
    (_, sent) = messages(summary, INPUTS["summary"])
    assert text_of(sent) == "2\n0.00/1 A red ball.\n31.25/2 It rolls away."


def test_pictures_are_laid_out_as_the_base_does() -> None:
    pair = Difference(FRAMES[0], FRAMES[1], "x")
    (_, apart) = messages(own(difference={"user": "{before}", "each": "{number}!"}), pair)
    assert images_of(apart) == [FRAMES[0].image, FRAMES[1].image]
    assert [part["text"] for part in apart["content"] if part["type"] == "text"] == ["1!", "2!", "x"]
    (stacked,) = messages(own("sharecaptioner", difference={"user": "{before}"}), pair)
    (image,) = images_of(stacked)
    assert size_of(image) == (64, 48 + 50 + 48)


def test_the_system_text_is_sent_as_it_is_or_the_bases_or_none() -> None:
    def system(prompt: dict[str, str], base: str = "teacher") -> str | None:
        first = messages(own(base, first={"user": "x", **prompt}), First(FRAMES[0]))[0]
        return first["content"] if first["role"] == "system" else None

    assert system({"system": "Say {number}, {{."}) == "Say {number}, {{."
    assert system({}) == messages("teacher", First(FRAMES[0]))[0]["content"]
    assert system({"system": ""}) is None
    assert system({}, "sharecaptioner") is None


def test_examples_are_earlier_turns() -> None:
    shown = base64.b64encode(picture("red")).decode()
    examples = [
        {"user": "And here?", "images": [shown, shown], "assistant": "A red field."},
        {"user": "{number}", "assistant": "One."},
    ]
    sent = messages(own(first={"user": "Now {number}.", "examples": examples}), First(FRAMES[2]))
    assert [message["role"] for message in sent] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert images_of(sent[1]) == [picture("red")] * 2
    assert (text_of(sent[1]), sent[2]["content"]) == ("And here?", "A red field.")
    assert text_of(sent[3]) == "{number}"  # an example is no template
    assert text_of(sent[5]).endswith("Now 3.")
    assert images_of(sent[5]) == [FRAMES[2].image]


@pytest.mark.parametrize("base", ["teacher", "sharecaptioner"])
def test_roles_left_out_are_the_bases(base: Any) -> None:
    prompts = own(base, summary={"user": "{captions}"})
    for role in ("brief", "fast", "first", "difference", "recaption"):
        assert messages(prompts, INPUTS[role]) == messages(base, INPUTS[role])


def test_a_role_the_base_lacks_can_be_given() -> None:
    given: RoleInput = ShortPrompt("A long caption.")
    prompts = own("sharecaptioner", prompt={"user": "Shorten: {caption}"})
    assert text_of(messages(prompts, given)[0]) == "Shorten: A long caption."
    spec = EngineSpec(url="http://h/v1", model="m", prompts=prompts)
    require_role(spec, "prompt")
    with pytest.raises(UserError, match=r"no role structured \(m\)"):
        require_role(spec, "structured")
    with pytest.raises(UserError, match="no role structured"):
        messages(prompts, Structured((TimedCaption(1, 0.0, "x"),)))


def test_the_version_changes_with_anything_that_is_sent() -> None:
    shown = [base64.b64encode(picture(colour)).decode() for colour in ("red", "blue")]
    sets = [
        own(first={"user": "a"}),
        own(first={"user": "b"}),
        own(fast={"user": "a"}),
        own("sharecaptioner", first={"user": "a"}),
        own(first={"user": "a", "system": ""}),
        *(own(first={"user": "a", "examples": [{"images": [one], "assistant": "a"}]}) for one in shown),
    ]
    versions = [prompt_version(prompts) for prompts in sets]
    assert len(set(versions)) == len(sets)
    assert {version.rpartition("-")[0] for version in versions} == {"mine"}
    assert {prompt_name(prompts) for prompts in sets} == {"mine"}
    assert versions[0] == prompt_version(own(first={"user": "a"})) == "mine-621b094911fc"


def test_a_prompt_that_comes_back_is_told_from_a_caption() -> None:
    system = "You are terse.\nNever mention the colour of the sky in words."
    prompts = own(first={"system": system, "user": "Say in frame {number} all that you can see there now."})
    spoken = leaks(prompts)
    for caption, failed in (
        ("never mention the colour of the sky in words.", (PROMPT_LEAK,)),
        ("So: all that you can see there now. A dog.", (PROMPT_LEAK,)),
        ("You are terse. A dog sits there.", ()),
    ):
        assert failed_checks(caption, truncated=False, context=CheckContext(leaks=spoken)) == failed
    assert set(leaks("teacher")) <= set(spoken)


def test_text_roles_send_no_picture() -> None:
    for role, given in {
        "summary": Summary((TimedCaption(1, 0.0, "x"),)),
        "recaption": Recaption("x"),
    }.items():
        prompts = own("sharecaptioner", **{role: {"user": "{captions}" if role == "summary" else "{text}"}})
        (message,) = messages(prompts, given)
        assert images_of(message) == []
    assert (
        size_of(images_of(messages(own("sharecaptioner", fast={"user": "x"}), Fast(FRAMES))[0])[0])[0] == 184
    )
