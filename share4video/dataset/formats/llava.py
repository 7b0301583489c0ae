"""LLaVA's training file: a JSON list of ``{"id", "image", "conversations": [{"from", "value"}, ...]}``.

This is the form of the released 181K mixture, where the "video" is a frame grid rendered beforehand. The
format has no turn for the system text; it is kept in a ``system`` key, which LLaVA's own reader passes over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from share4video.dataset.messages import IMAGE_MARK, Message, MessageError, check_messages
from share4video.errors import UserError

MAX_FILE_BYTES = 2 << 30

_ROLES = {"human": "user", "gpt": "assistant"}
_SPEAKERS = {role: speaker for speaker, role in _ROLES.items()}


@dataclass(frozen=True)
class Sample:
    """One conversation; ``image`` is a path relative to the image folder, None for text alone."""

    sample_id: str
    image: str | None
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Reject:
    """An element that is no sample; ``index`` is its place in the list."""

    index: int
    reason: str
    sentence: str


def read(path: Path) -> Iterator[Sample | Reject]:
    """Yield one sample or one reject per element of the list, in order.

    The image mark is put first in the first user turn, wherever it stood, as the reference's reader does.

    Raises:
        UserError: the file cannot be read, is too large or holds no JSON list.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(
                f"the file is larger than {MAX_FILE_BYTES} bytes",
                where=str(path),
                fix="split it into several",
            )
        elements = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"cannot read the samples: {error.strerror}", where=str(path), fix="check the path"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError("the file is not JSON", where=str(path), fix=f"mend it: {error}") from error
    if not isinstance(elements, list):
        raise UserError("the file holds no JSON list", where=str(path), fix="give a file in LLaVA's format")
    for index, element in enumerate(elements):
        try:
            yield _sample(element)
        except MessageError as error:
            yield Reject(index, "wrong_shape", str(error))


def encode(samples: Iterable[Sample]) -> bytes:
    """Return the file's bytes, one sample per line; equal samples give equal bytes."""
    lines = [json.dumps(_element(sample), ensure_ascii=False) for sample in samples]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def _sample(element: Any) -> Sample:
    if not isinstance(element, dict):
        raise MessageError("the element is no object")
    sample_id, image, system = element.get("id"), element.get("image"), element.get("system", "")
    if not isinstance(sample_id, str | int) or isinstance(sample_id, bool):
        raise MessageError("id is missing or neither text nor number")
    if not (image is None or isinstance(image, str)) or not isinstance(system, str):
        raise MessageError("image and system must be text")
    turns = element.get("conversations")
    if not isinstance(turns, list):
        raise MessageError("conversations is missing or no list")
    messages = [Message("system", system)] if system else []
    for turn in turns:
        role = _ROLES.get(str(turn.get("from"))) if isinstance(turn, dict) else None
        value = turn.get("value") if isinstance(turn, dict) else None
        if role is None or not isinstance(value, str):
            raise MessageError("a turn is not {from: human or gpt, value: text}")
        messages.append(Message(role, value))
    if image is not None:
        messages = _mark_first(messages)
    check_messages(messages, image=image is not None)
    return Sample(str(sample_id), image, tuple(messages))


def _mark_first(messages: list[Message]) -> list[Message]:
    first = next((index for index, message in enumerate(messages) if message.role == "user"), None)
    if first is None:
        return messages
    text = messages[first].content.replace(IMAGE_MARK, "").strip()
    return [*messages[:first], Message("user", f"{IMAGE_MARK}\n{text}"), *messages[first + 1 :]]


def _element(sample: Sample) -> dict[str, Any]:
    element: dict[str, Any] = {"id": sample.sample_id}
    if sample.image is not None:
        element["image"] = sample.image
    system = [message.content for message in sample.messages if message.role == "system"]
    if system:
        element["system"] = system[0]
    element["conversations"] = [
        {"from": _SPEAKERS[message.role], "value": message.content}
        for message in sample.messages
        if message.role != "system"
    ]
    return element
