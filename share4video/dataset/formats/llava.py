"""LLaVA's training file: a JSON list of ``{"id", "image", "conversations": [{"from", "value"}, ...]}``.

This is the form of the released 181K mixture, where the "video" is a frame grid rendered beforehand. Later
members of the family (LLaVA-NeXT-Video, LLaVA-Video) have ``video`` in the place of ``image``, with the same
mark. The format has no turn for the system text; it is kept in a ``system`` key, which LLaVA's own reader
passes over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from share4video.dataset.formats.elements import list_chunks, list_elements
from share4video.dataset.formats.lines import Reject
from share4video.dataset.messages import IMAGE_MARK, Message, MessageError, check_messages

VIDEO_MARK = "<video>"

_ROLES = {"human": "user", "gpt": "assistant"}
_SPEAKERS = {role: speaker for speaker, role in _ROLES.items()}


@dataclass(frozen=True)
class Sample:
    """One conversation; ``image`` is a path relative to the image folder, ``video`` to that of the videos.

    At most one of them is set; neither is where the conversation is text alone.
    """

    sample_id: str
    image: str | None
    messages: tuple[Message, ...]
    video: str | None = None


def read(path: Path) -> Iterator[Sample | Reject]:
    """Yield one sample or one reject per element of the list, in order.

    The image mark is put first in the first user turn, wherever it stood, as the reference's reader does.
    ``<video>``, which Video-LLaVA writes, is read as the image mark.

    Raises:
        UserError: the file cannot be read, is no JSON list or breaks off.
    """
    for element in list_elements(path):
        if isinstance(element, Reject):
            yield element
            continue
        number, value = element
        try:
            yield _sample(value)
        except MessageError as error:
            yield Reject(number, "wrong_shape", str(error))


def encode(samples: Iterable[Sample]) -> bytes:
    """Return the file's bytes, one sample per line; equal samples give equal bytes."""
    return b"".join(chunks(samples))


def chunks(samples: Iterable[Sample]) -> Iterator[bytes]:
    """Yield the bytes of `encode` sample by sample."""
    return list_chunks(map(_element, samples))


def _sample(element: Any) -> Sample:
    if not isinstance(element, dict):
        raise MessageError("the element is no object")
    sample_id, system = element.get("id"), element.get("system", "")
    image, video = element.get("image"), element.get("video")
    if not isinstance(sample_id, str | int) or isinstance(sample_id, bool):
        raise MessageError("id is missing or neither text nor number")
    if not isinstance(image, str | None) or not isinstance(video, str | None) or not isinstance(system, str):
        raise MessageError("image, video and system must be text")
    if image is not None and video is not None:
        raise MessageError("there is an image and a video")
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
    shown = image is not None or video is not None
    if shown:
        messages = _mark_first(messages)
    check_messages(messages, image=shown)
    return Sample(str(sample_id), image, tuple(messages), video)


def _mark_first(messages: list[Message]) -> list[Message]:
    first = next((index for index, message in enumerate(messages) if message.role == "user"), None)
    if first is None:
        return messages
    text = messages[first].content.replace(VIDEO_MARK, IMAGE_MARK).replace(IMAGE_MARK, "").strip()
    return [*messages[:first], Message("user", f"{IMAGE_MARK}\n{text}"), *messages[first + 1 :]]


def _element(sample: Sample) -> dict[str, Any]:
    element: dict[str, Any] = {"id": sample.sample_id}
    if sample.image is not None:
        element["image"] = sample.image
    if sample.video is not None:
        element["video"] = sample.video
    system = [message.content for message in sample.messages if message.role == "system"]
    if system:
        element["system"] = system[0]
    element["conversations"] = [
        {"from": _SPEAKERS[message.role], "value": message.content}
        for message in sample.messages
        if message.role != "system"
    ]
    return element
