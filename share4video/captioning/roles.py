"""The captioner's roles: typed inputs, and the prompts that turn them into messages.

Prompts are one of two *dialects*, or a person's own set over one of them. Their version goes into every row
made with them and into the store's keys: change a word of a prompt and the version must change with it. A
role that is added needs no new version: what was captioned in the others stays what it was.
"""

from __future__ import annotations

from typing import Literal, Protocol

from share4video.captioning import own_prompts, sharecaptioner, teacher
from share4video.captioning.client import text_part
from share4video.captioning.role_inputs import (
    Brief,
    Difference,
    Fast,
    First,
    KeyFrame,
    Message,
    Part,
    Recaption,
    RoleInput,
    ShortPrompt,
    Span,
    Structured,
    Summary,
    TimedCaption,
    Window,
)
from share4video.config import EngineSpec
from share4video.prompt_set import PromptSet, RoleName
from share4video.wording import Adapted, TileBudgets, Wording

__all__ = [
    "Brief",
    "Dialect",
    "Difference",
    "Fast",
    "First",
    "KeyFrame",
    "Message",
    "Part",
    "Recaption",
    "RoleInput",
    "ShortPrompt",
    "Span",
    "Structured",
    "Summary",
    "TimedCaption",
    "Window",
    "Wording",
    "leaks",
    "messages",
    "prompt_name",
    "prompt_version",
    "require_role",
    "without_system",
]

Dialect = Literal["sharecaptioner", "teacher"]


class _PromptSet(Protocol):
    @property
    def VERSION(self) -> str: ...
    @property
    def LEAKS(self) -> tuple[str, ...]: ...


_PROMPT_SETS: dict[Dialect, _PromptSet] = {"sharecaptioner": sharecaptioner, "teacher": teacher}


def messages(wording: Wording, given: RoleInput) -> list[Message]:
    """Return the chat messages that put ``given`` to an engine.

    ``sharecaptioner`` composes the frames into one image in the released layouts, ``teacher`` sends them as
    separate images; own prompts do as the dialect they are based on. `Adapted` ones are in a model's form.

    Raises:
        UserError: the prompts have no such role.
    """
    if isinstance(wording, Adapted):
        found = _messages(wording.words, given, wording.tiles)
        return found if wording.system_message else without_system(found)
    return _messages(wording, given, None)


def _messages(words: Dialect | PromptSet, given: RoleInput, tiles: TileBudgets | None) -> list[Message]:
    if isinstance(words, PromptSet):
        return own_prompts.messages(words, given, tiles) or _messages(words.base, given, tiles)
    if words == "sharecaptioner":
        return sharecaptioner.messages(given, tiles)
    return teacher.messages(given)


def without_system(found: list[Message]) -> list[Message]:
    """Return messages with the system's text at the head of the first user message."""
    first, *others = found
    if first["role"] != "system":
        return found
    asked, *rest = others
    return [{**asked, "content": [text_part(first["content"] + "\n\n"), *asked["content"]]}, *rest]


def prompt_version(wording: Wording) -> str:
    """Return the name of the prompts as they are now; captions are published under it."""
    if isinstance(wording, Adapted):
        return prompt_version(wording.words) + wording.version
    if isinstance(wording, PromptSet):
        return own_prompts.version(wording)
    return _PROMPT_SETS[wording].VERSION


def prompt_name(wording: Wording) -> str:
    """Return what tables call the prompts whatever their version: a dialect, or the name of own ones."""
    if isinstance(wording, Adapted):
        return prompt_name(wording.words)
    return wording.name if isinstance(wording, PromptSet) else wording


def leaks(wording: Wording) -> tuple[str, ...]:
    """Return phrases that belong to the prompts and never to a caption."""
    if isinstance(wording, Adapted):
        return leaks(wording.words)
    if isinstance(wording, PromptSet):
        return own_prompts.leaks(wording)
    return _PROMPT_SETS[wording].LEAKS


def require_role(spec: EngineSpec, role: RoleName) -> None:
    """Check that an engine can be asked for a role, before anything is paid for.

    Raises:
        UserError: its prompts have no such role.
    """
    own = spec.prompts is not None and role in spec.prompts.roles.given()
    if spec.dialect == "sharecaptioner" and role in sharecaptioner.MISSING and not own:
        raise sharecaptioner.missing_role(role, where=spec.model)
