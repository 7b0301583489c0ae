"""VideoChat's training files: JSON lists of videos and pictures with questions, or with a caption.

    [{"video" | "image": PATH, "QA": [{"q": TEXT, "a": TEXT}, ...], "start"?: ...}]    instructions, stage 2
    [{"video" | "image": PATH, "caption": TEXT}]                                       captions, stage 1

What ``start`` says is documented nowhere (the released code fails before it is used): numbers and texts are
kept as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from share4video.dataset.formats.elements import list_chunks, list_elements
from share4video.dataset.formats.lines import Reject

Kind = Literal["video", "image"]


@dataclass(frozen=True)
class QA:
    """A question about a video or a picture, and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Instruction:
    """A conversation; ``path`` is relative to the folder of videos, or to that of pictures."""

    kind: Kind
    path: str
    turns: tuple[QA, ...]
    start: float | str | None = None


@dataclass(frozen=True)
class Caption:
    """A video or a picture in one text; ``path`` as an instruction's."""

    kind: Kind
    path: str
    text: str


Sample = Instruction | Caption


def read(path: Path) -> Iterator[Sample | Reject]:
    """Yield one sample or one reject (``wrong_shape``) per element of the list, in order.

    The two forms may be mixed. Other keys are passed over.

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
        except ValueError as error:
            yield Reject(number, "wrong_shape", str(error))


def chunks(samples: Iterable[Sample]) -> Iterator[bytes]:
    """Yield the file's bytes, one sample per line; equal samples give equal bytes."""
    return list_chunks(map(_element, samples))


def _sample(element: Any) -> Sample:
    if not isinstance(element, dict):
        raise ValueError("the element is no object")
    kinds: list[Kind] = [kind for kind in ("video", "image") if kind in element]
    if len(kinds) != 1:
        raise ValueError("the element names no video and no image" if not kinds else "it names both")
    path = element[kinds[0]]
    if not isinstance(path, str) or not path:
        raise ValueError(f"{kinds[0]} is no path")
    if ("QA" in element) == ("caption" in element):
        raise ValueError("there must be either QA or a caption")
    if "caption" in element:
        return Caption(kinds[0], path, _text(element["caption"], "the caption"))
    start = element.get("start")
    if not isinstance(start, str | int | float | None) or isinstance(start, bool):
        raise ValueError("start is neither a number nor text")
    return Instruction(kinds[0], path, _turns(element["QA"]), start)


def _turns(value: Any) -> tuple[QA, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("QA is no list, or an empty one")
    turns = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, dict):
            raise ValueError(f"turn {number} is no object with q and a")
        turns.append(
            QA(_text(turn.get("q"), f"q of turn {number}"), _text(turn.get("a"), f"a of turn {number}"))
        )
    return tuple(turns)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what} is missing, no text or empty")
    return value


def _element(sample: Sample) -> dict[str, Any]:
    if isinstance(sample, Caption):
        return {sample.kind: sample.path, "caption": sample.text}
    turns = [{"q": turn.question, "a": turn.answer} for turn in sample.turns]
    start = {} if sample.start is None else {"start": sample.start}
    return {sample.kind: sample.path, "QA": turns, **start}
