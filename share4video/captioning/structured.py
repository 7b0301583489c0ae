"""Captions as fields: a JSON object about a whole clip, checked before anything is made of it."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

MALFORMED = "malformed"  # the code of the check

MAX_ANSWER_CHARS = 64 << 10
_MAX_OBJECTS = 16  # braces in prose before the object
_ROUNDING_S = 0.01  # prompts print times with two decimals


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("a text is empty")
    return text.strip()


Text = Annotated[str, AfterValidator(_said)]


class _Fields(BaseModel):
    """All fields must be there and no others: then a schema made from them holds for strict engines."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Subject(_Fields):
    """Someone or something in the clip."""

    name: Text
    looks: str


class _Timed(_Fields):
    """Something with a beginning and an end, in seconds from the start of the video."""

    start_s: float
    end_s: float

    @model_validator(mode="after")
    def _in_order(self) -> _Timed:
        if self.end_s < self.start_s:
            raise ValueError("it ends before it starts")
        return self


class Action(_Timed):
    """What a subject does."""

    subject: Text
    action: Text


class CameraMotion(_Timed):
    """What the camera does."""

    motion: Text


class Span(_Timed):
    """What happens in a part of the clip."""

    caption: Text


class StructuredCaption(_Fields):
    """A clip's caption in fields."""

    setting: Text
    subjects: tuple[Subject, ...] = Field(max_length=64)
    actions: tuple[Action, ...] = Field(max_length=128)
    camera: tuple[CameraMotion, ...] = Field(max_length=64)
    spans: tuple[Span, ...] = Field(max_length=64)

    def within(self, start_s: float, end_s: float) -> bool:
        """Whether every time lies between two others, up to what printing them rounds off."""
        timed: tuple[_Timed, ...] = (*self.actions, *self.camera, *self.spans)
        return all(
            start_s - _ROUNDING_S <= part.start_s and part.end_s <= end_s + _ROUNDING_S for part in timed
        )

    def canonical(self) -> str:
        """Return it as JSON that is the same for the same content."""
        return json.dumps(
            self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, separators=(",", ":")
        )

    def texts(self) -> list[str]:
        """Return all it says in words, for the checks of captions."""
        subjects = [text for subject in self.subjects for text in (subject.name, subject.looks)]
        actions = [text for action in self.actions for text in (action.subject, action.action)]
        camera, spans = [c.motion for c in self.camera], [s.caption for s in self.spans]
        return [self.setting, *subjects, *actions, *camera, *spans]


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the object, for engines that take one."""
    return StructuredCaption.model_json_schema()


def read_structured(answer: str, start_s: float, end_s: float) -> StructuredCaption | None:
    """Read the object in an engine's answer; None where there is none, or it is not as it should be.

    A Markdown fence and prose around the object are passed over, and nothing else is mended.

    Args:
        start_s, end_s: the times of the first and the last key frame, between which all times must lie.
    """
    found = _first_object(answer) if len(answer) <= MAX_ANSWER_CHARS else None
    if found is None:
        return None
    try:
        caption = StructuredCaption.model_validate_json(found)
    except ValidationError:
        return None
    return caption if caption.within(start_s, end_s) else None


def _first_object(text: str) -> str | None:
    """Return the first JSON object in a text that is more than a brace in a sentence."""
    start = -1
    for _ in range(_MAX_OBJECTS):
        start = text.find("{", start + 1)
        if start < 0:
            return None
        try:
            _, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        return text[start:end]
    return None
