"""Mixtures of pictures, videos and text, as the trainers of Video-LLaVA and LLaMA-VID read them.

Both take LLaVA's list (see `llava`) with a file under ``image`` or ``video``, never both, and look whether
the key is there, not what it holds. They differ in the mark for a video: Video-LLaVA's trainer repeats
``<image>`` for every frame where ``<video>`` stands, LLaMA-VID's knows ``<image>`` alone. Both replace a
sample they cannot load by a random other one without a word, so what neither can load is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from share4video.dataset.formats.llava import VIDEO_MARK
from share4video.dataset.messages import IMAGE_MARK, MessageError

Kind = Literal["image", "video", "text"]

# What VideoChatGPT's questions for whole descriptions have in common; a rule of ours, the release names none.
_DESCRIBES = re.compile(
    r"\b(?:describe|description|detail|details|detailed|caption|summar\w+|elaborate|narrate)\b"
    r"|\bwhat (?:is|are|'s|was) (?:happening|going on|taking place|shown|seen)\b"
    r"|\bwhat (?:happens|happened|do you see|can you see|can be seen)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Layout:
    """How one trainer wants its file.

    Attributes:
        file_name: under which it is written.
        video_mark: what stands for a video in the first question.
    """

    name: str
    file_name: str
    video_mark: str


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("video-llava", "video_llava.json", VIDEO_MARK),
        Layout("llama-vid", "llama_vid.json", IMAGE_MARK),
    )
}


def kind_of(element: Any) -> Kind:
    """Return what a sample is about, after a look at what the trainers rely on.

    Raises:
        MessageError: it is no sample, names more than one file, or a video's mark is not there once.
    """
    if not isinstance(element, dict):
        raise MessageError("the element is no object")
    turns = element.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise MessageError("conversations is missing or no list")
    for turn in turns:
        if not (isinstance(turn, dict) and isinstance(turn.get("from"), str)):
            raise MessageError("a turn does not say who it is from")
        if not isinstance(turn.get("value"), str):
            raise MessageError("the value of a turn is no text")
    image, video = element.get("image"), element.get("video")
    if not isinstance(image, str | None) or not isinstance(video, str | None):
        raise MessageError("image and video must each name one file")
    if image is not None and video is not None:
        raise MessageError("there is an image and a video")
    if image is not None:
        return "image"
    if video is None:
        return "text"
    marks = sum(turn["value"].count(IMAGE_MARK) + turn["value"].count(VIDEO_MARK) for turn in turns)
    if marks != 1:
        raise MessageError(f"{marks} marks for one video")
    return "video"


def asks_for_description(element: Mapping[str, Any]) -> bool:
    """Say whether a sample is one question that asks for a description of the whole video, and its answer."""
    turns = element["conversations"]
    return len(turns) == 2 and _DESCRIBES.search(turns[0]["value"]) is not None


def caption_element(sample_id: str, video: str, question: str, caption: str) -> dict[str, Any]:
    """Return a caption as a sample, with Video-LLaVA's mark.

    Raises:
        MessageError: question or caption is empty or has a mark in it.
    """
    for text in (question, caption):
        if not text.strip():
            raise MessageError("question or caption is empty")
        if IMAGE_MARK in text or VIDEO_MARK in text:
            raise MessageError("a mark for a picture or video stands in the text")
    return {
        "id": sample_id,
        "video": video,
        "conversations": [
            {"from": "human", "value": f"{VIDEO_MARK}\n{question}"},
            {"from": "gpt", "value": caption},
        ],
    }


def in_layout(
    element: Mapping[str, Any], kind: Kind, layout: Layout, renames: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    """Return a sample as a trainer reads it; all that does not differ between them stays as it is.

    Args:
        renames: how names of files begin, and how they are to begin instead; the first that fits is taken.
    """
    # A key that holds nothing would be taken for a file.
    kept = {
        key: value for key, value in element.items() if value is not None or key not in ("image", "video")
    }
    if kind == "text":
        return kept
    kept[kind] = renamed(kept[kind], renames)
    if kind == "video":
        kept["conversations"] = [
            {
                **turn,
                "value": turn["value"].replace(VIDEO_MARK, IMAGE_MARK).replace(IMAGE_MARK, layout.video_mark),
            }
            for turn in kept["conversations"]
        ]
    return kept


def renamed(path: str, renames: Sequence[tuple[str, str]]) -> str:
    """Return a file's name with its beginning replaced."""
    for old, new in renames:
        if path.startswith(old):
            return new + path[len(old) :]
    return path
