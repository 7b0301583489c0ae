"""What a client may ask the captioner: checked, bounded, and nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from serving.gateway.messages import PICTURE_MARK
from serving.gateway.refusal import Refusal

MAX_CAPTIONS = 512


def _unmarked(text: str) -> str:
    if PICTURE_MARK in text:
        raise ValueError(f"a text may not hold {PICTURE_MARK}, the mark of a picture")
    return text


Text = Annotated[str, StringConstraints(min_length=1, max_length=20_000), AfterValidator(_unmarked)]
Role = Literal["fast", "sliding", "summary", "recaption"]


class VideoUrl(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    url: str = Field(min_length=1)


class FrameCaption(BaseModel):
    """A caption to be summarised; ``timestamp_s`` in seconds from the start of the clip."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    timestamp_s: float = Field(ge=0, allow_inf_nan=False)
    caption: Text


class CaptionRequest(BaseModel):
    """``POST /v1/captions``.

    ``fast`` and ``sliding`` need ``video_url``; ``summary`` needs ``captions`` or ``video_url``;
    ``recaption`` needs ``text``. ``stream`` is for ``sliding`` alone, whose default it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    role: Role
    model: str = ""
    video_url: VideoUrl | None = None
    captions: tuple[FrameCaption, ...] = Field((), max_length=MAX_CAPTIONS)
    text: Text | None = None
    stream: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain_url(cls, body: Any) -> Any:
        if isinstance(body, dict) and isinstance(body.get("video_url"), str):
            return {**body, "video_url": {"url": body["video_url"]}}
        return body

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        given = {name for name in ("video_url", "captions", "text") if getattr(self, name)}
        takes: dict[str, set[str]] = {
            "fast": {"video_url"},
            "sliding": {"video_url"},
            "summary": {"captions", "video_url"},
            "recaption": {"text"},
        }
        if len(given) != 1 or not given <= takes[self.role]:
            raise ValueError(
                f"role {self.role} takes {' or '.join(sorted(takes[self.role]))}, and nothing else"
            )
        if self.stream and self.role != "sliding":
            raise ValueError("only role sliding streams")
        return self

    @property
    def streams(self) -> bool:
        return self.role == "sliding" and self.stream is not False

    @classmethod
    def parse(cls, body: Any, *, place: str = "the request") -> CaptionRequest:
        """Read a request. Raises Refusal (400) with the first thing that is wrong."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step)[:100] for step in first["loc"])
            what = first["msg"].removeprefix("Value error, ")
            raise Refusal(400, "bad_request", f"{place}{f', {where}' if where else ''}: {what}") from None
