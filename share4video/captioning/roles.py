"""The captioner's roles: typed inputs, and the prompts that turn them into messages.

Prompts are one of two *dialects*, or a person's own set over one of them. Their version goes into every row
made with them and into the store's keys: change a word of a prompt and the version must change with it. A
role that is added needs no new version: what was captioned in the others stays what it was.
"""

from __future__ import annotations

from typing import Literal, Protocol

from share4video.captioning import own_prompts, sharecaptioner, teacher
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
]

Dialect = Literal["sharecaptioner", "teacher"]
Wording = Dialect | PromptSet  # `EngineSpec.wording`


class _PromptSet(Protocol):
    @property
    def VERSION(self) -> str: ...
    @property
    def LEAKS(self) -> tuple[str, ...]: ...
    def messages(self, given: RoleInput) -> list[Message]: ...


_PROMPT_SETS: dict[Dialect, _PromptSet] = {"sharecaptioner": sharecaptioner, "teacher": teacher}


def messages(wording: Wording, given: RoleInput) -> list[Message]:
    """Return the chat messages that put ``given`` to an engine.

    ``sharecaptioner`` composes the frames into one image in the released layouts, ``teacher`` sends them as
    separate images; own prompts do as the dialect they are based on.

    Raises:
        UserError: the prompts have no such role.
    """
    if isinstance(wording, PromptSet):
        return own_prompts.messages(wording, given) or messages(wording.base, given)
    return _PROMPT_SETS[wording].messages(given)


def prompt_version(wording: Wording) -> str:
    """Return the name of the prompts as they are now; captions are published under it."""
    if isinstance(wording, PromptSet):
        return own_prompts.version(wording)
    return _PROMPT_SETS[wording].VERSION


def prompt_name(wording: Wording) -> str:
    """Return what tables call the prompts whatever their version: a dialect, or the name of own ones."""
    return wording.name if isinstance(wording, PromptSet) else wording


def leaks(wording: Wording) -> tuple[str, ...]:
    """Return phrases that belong to the prompts and never to a caption."""
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
