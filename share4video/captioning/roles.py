"""The captioner's roles: typed inputs, and the prompt sets ("dialects") that turn them into messages.

A dialect's version goes into every row made with it and into the store's keys: change a word of a prompt and
the version must change with it.
"""

from __future__ import annotations

from typing import Literal, Protocol

from share4video.captioning import sharecaptioner, teacher
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
    Span,
    Summary,
    TimedCaption,
    Window,
)

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
    "Span",
    "Summary",
    "TimedCaption",
    "Window",
    "leaks",
    "messages",
    "prompt_version",
]

Dialect = Literal["sharecaptioner", "teacher"]


class _PromptSet(Protocol):
    @property
    def VERSION(self) -> str: ...
    @property
    def LEAKS(self) -> tuple[str, ...]: ...
    def messages(self, given: RoleInput) -> list[Message]: ...


_PROMPT_SETS: dict[Dialect, _PromptSet] = {"sharecaptioner": sharecaptioner, "teacher": teacher}


def messages(dialect: Dialect, given: RoleInput) -> list[Message]:
    """Return the chat messages that put ``given`` to an engine.

    ``sharecaptioner`` composes the frames into one image in the released layouts, ``teacher`` sends them as
    separate images.
    """
    return _PROMPT_SETS[dialect].messages(given)


def prompt_version(dialect: Dialect) -> str:
    """Return the name of the dialect's prompts as they are now; captions are published under it."""
    return _PROMPT_SETS[dialect].VERSION


def leaks(dialect: Dialect) -> tuple[str, ...]:
    """Return phrases that belong to the prompts and never to a caption."""
    return _PROMPT_SETS[dialect].LEAKS
