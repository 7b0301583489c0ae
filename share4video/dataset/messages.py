"""Conversations as the ``sft`` table holds them: a JSON list of ``{"role", "content"}`` in OpenAI's form.

``<image>`` stands for the picture and comes first in the first user turn, followed by a line break, as in the
reference's training data; nowhere else may the mark appear.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

IMAGE_MARK = "<image>"


class MessageError(ValueError):
    """A conversation that cannot be trained on; its text says why."""


@dataclass(frozen=True)
class Message:
    """One turn; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


def check_messages(messages: Sequence[Message], *, image: bool) -> None:
    """Check the turns: an optional system text, then user and assistant in alternation, an answer last.

    Args:
        image: whether the conversation is about a picture, and so must carry the mark.

    Raises:
        MessageError: they are not, a turn is empty, or the image mark is missing or misplaced.
    """
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    if not turns or len(turns) % 2:
        raise MessageError("a conversation needs a user turn and an answer to each")
    for index, turn in enumerate(turns):
        expected = ("user", "assistant")[index % 2]
        if turn.role != expected:
            raise MessageError(f"turn {index} is by {turn.role!r}, not by {expected!r}")
        if not turn.content.replace(IMAGE_MARK, "").strip():
            raise MessageError(f"turn {index} is empty")
    if image and not turns[0].content.startswith(IMAGE_MARK + "\n"):
        raise MessageError(f"the first user turn does not start with {IMAGE_MARK} and a line break")
    marks = sum(message.content.count(IMAGE_MARK) for message in messages)
    if marks != int(image):
        raise MessageError(f"{marks} image marks for {int(image)} pictures")


def encode_messages(messages: Sequence[Message]) -> str:
    """Return the table's text; equal conversations give equal text."""
    return json.dumps([{"role": m.role, "content": m.content} for m in messages], ensure_ascii=False)


def decode_messages(text: str) -> tuple[Message, ...]:
    """Read what ``encode_messages`` wrote. Raises MessageError where the text is something else."""
    try:
        turns = json.loads(text)
        return tuple(Message(role=str(turn["role"]), content=str(turn["content"])) for turn in turns)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MessageError(f"not a list of messages: {error}") from None
