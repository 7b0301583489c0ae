"""OpenAI chat messages in, OpenAI chat messages with exactly one image out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.gateway.media_source import Kind
from serving.gateway.refusal import Refusal
from share4video.chat import grid_question

Message = dict[str, Any]

_ROLES = frozenset({"system", "user", "assistant"})
_PARTS: dict[str, Kind] = {"video_url": "video", "image_url": "image"}
MAX_MESSAGES = 256
PICTURE_MARK = "<image>"  # where a prompt's picture goes; in a text it would ask for one more


@dataclass(frozen=True)
class Visual:
    """The one video or image of a conversation: the message it stands in, its kind and its address."""

    message: int
    kind: Kind
    address: str


def find_visual(messages: Any) -> Visual | None:
    """Check ``messages`` and return their video or image, if they have one.

    The models were trained on one image per conversation, at the head of a user turn; a second one would be
    answered with nonsense, so it is refused.

    Raises:
        Refusal: the messages do not follow the protocol, or hold more than one video or image.
    """
    if not isinstance(messages, list) or not 0 < len(messages) <= MAX_MESSAGES:
        raise Refusal(400, "bad_messages", f"messages must be a list of 1 to {MAX_MESSAGES} messages")
    found: list[Visual] = []
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise Refusal(400, "bad_messages", f"message {index} needs a role: system, user or assistant")
        for part in _parts(message, index):
            if part["type"] == "text":
                refuse_picture_mark(part["text"], f"message {index}")
                continue
            if message["role"] != "user":
                raise Refusal(400, "bad_messages", f"message {index}: only a user's message may hold media")
            found.append(Visual(index, _PARTS[part["type"]], _address(part, index)))
    if len(found) > 1:
        raise Refusal(
            400, "one_visual", f"the model looks at one video or image per conversation, not {len(found)}"
        )
    return found[0] if found else None


def refuse_picture_mark(text: str, place: str) -> None:
    """Raise Refusal (400) where ``text`` holds the mark that stands for a picture in the model's prompt."""
    if PICTURE_MARK in text:
        raise Refusal(
            400, "bad_messages", f"{place}: a text may not hold {PICTURE_MARK}, the mark of a picture"
        )


def with_image(messages: Sequence[Message], visual: Visual, image: str) -> list[Message]:
    """Return ``messages`` with the visual replaced by ``image`` (a data: URI), at the head of its turn.

    A video's grid is announced to the model by the pre-query it was trained with, in front of the question.
    """
    message = messages[visual.message]
    texts = [part for part in _parts(message, visual.message) if part["type"] == "text"]
    if visual.kind == "video":
        first = texts[0]["text"] if texts else ""
        texts = [{"type": "text", "text": grid_question(first)}, *texts[1:]]
    content = [{"type": "image_url", "image_url": {"url": image}}, *texts]
    changed = list(messages)
    changed[visual.message] = {**message, "content": content}
    return changed


def _parts(message: Message, index: int) -> list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise Refusal(400, "bad_messages", f"message {index}: content must be text or a list of parts")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", *_PARTS):
            raise Refusal(
                400, "bad_messages", f"message {index}: a part must be text, video_url or image_url"
            )
        if kind == "text" and not isinstance(part.get("text"), str):
            raise Refusal(400, "bad_messages", f"message {index}: a text part needs its text")
    return content


def _address(part: dict[str, Any], index: int) -> str:
    holder = part.get(part["type"])
    address = holder.get("url") if isinstance(holder, dict) else holder
    if not isinstance(address, str) or not address:
        raise Refusal(400, "bad_messages", f'message {index}: write {{"{part["type"]}": {{"url": "..."}}}}')
    return address
