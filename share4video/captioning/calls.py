"""What is asked of an engine and what comes back: requests, answers, and failures by what can be done."""

from __future__ import annotations

import base64
import email.utils
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field

from share4video.errors import UserError
from share4video.served_models import API_KEY_VARIABLE

Message = Mapping[str, Any]
FailureReason = Literal["unavailable", "timeout", "malformed", "refused"]

MAX_RETRY_AFTER_S = 60.0
_PUSHED_BACK = (429, 503, 529)  # the last is some services' own for too much to do
_USER_MISTAKES = {
    401: ("the engine refused the key", f"set {API_KEY_VARIABLE}"),
    403: ("the engine forbids this request", "check the key's rights"),
    404: ("the engine has no such model or route", "check the engine's url and model"),
}


@dataclass(frozen=True)
class ChatRequest:
    """One call.

    ``prefill`` is the start of the answer, sent as a last assistant message. ``json_schema`` is what the
    answer must be, for engines that take one (`EngineSpec.json_schema`).
    """

    messages: Sequence[Message]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    prefill: str | None = None
    frequency_penalty: float | None = None
    json_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Completion:
    """An answer; ``text`` is without the prefill, ``finish_reason`` ``length`` means it was cut."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"


class CallError(Exception):
    """A call that failed for good: after its retries, or because retrying cannot help.

    ``str()`` of it is the sentence and the detail: for logs and for the person at the keyboard.

    Attributes:
        sentence: what went wrong, the same wherever the engine runs: fit to be published.
        detail: goes on where the sentence ends: at which address, how long it took, what the engine said.
        retry_after_s: after which time the endpoint wants to be asked again.
        pushed_back: whether the endpoint has too much to do: it said so, or nothing came in time.
    """

    def __init__(
        self,
        reason: FailureReason,
        sentence: str,
        detail: str = "",
        *,
        retry_after_s: float | None = None,
        pushed_back: bool = False,
    ) -> None:
        super().__init__(f"{sentence} {detail}".rstrip())
        self.reason: FailureReason = reason
        self.sentence, self.detail = sentence, detail
        self.retry_after_s, self.pushed_back = retry_after_s, pushed_back

    def bare(self) -> CallError:
        """Return a copy to keep: the original's traceback and cause hold the request with its pictures."""
        return CallError(
            self.reason,
            self.sentence,
            self.detail,
            retry_after_s=self.retry_after_s,
            pushed_back=self.pushed_back,
        )

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be answered another time."""
        return self.reason != "refused"


Outcome = Completion | CallError


def text_part(text: str) -> dict[str, Any]:
    """Return a content part for a text."""
    return {"type": "text", "text": text}


def image_part(data: bytes) -> dict[str, Any]:
    """Return a content part for a PNG or JPEG file. Raises ValueError for anything else."""
    if data.startswith(b"\xff\xd8\xff"):
        kind = "jpeg"
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = "png"
    else:
        raise ValueError("an image must be a PNG or a JPEG file")
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"},
    }


def may_pass(error: BaseException) -> bool:
    """Return whether what was raised is a failed call that may be answered another time."""
    return isinstance(error, CallError) and error.may_pass


def has_image(request: ChatRequest) -> bool:
    """Return whether there is a picture in the request."""
    return bool(list(_images(request.messages)))


def _images(messages: Sequence[Message]) -> Iterator[Message]:
    for message in messages:
        content = message["content"]
        for part in content if isinstance(content, list) else []:
            if part["type"] == "image_url":
                yield part


def check_images(messages: Sequence[Message]) -> None:
    if not all(part["image_url"]["url"].startswith("data:image/") for part in _images(messages)):
        raise ValueError("images are sent as data: URIs only")


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(BaseModel):
    """What is used of a chat completion; engines add fields of their own, and that is fine."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def read_answer(body: bytes) -> Completion:
    """Check and read an answer. Raises ValidationError where it is not one."""
    answer = _Answer.model_validate_json(body)
    choice, usage = answer.choices[0], answer.usage or _Usage()
    return Completion(
        text=choice.message.content or "",
        finish_reason=choice.finish_reason or "stop",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


def status_error(status: int, message: str, headers: Mapping[str, str], where: str) -> CallError | UserError:
    if status in _USER_MISTAKES:
        what, fix = _USER_MISTAKES[status]
        return UserError(what, where=where, fix=fix)
    sentence, detail = f"HTTP {status}", f"from {where}: {message[:300]}"
    if status in (408, 409, 425, 429) or status >= 500:
        wait_s = _retry_after_s(headers.get("retry-after"))
        pushed_back = status in _PUSHED_BACK
        return CallError("unavailable", sentence, detail, retry_after_s=wait_s, pushed_back=pushed_back)
    return CallError("refused", sentence, detail)


def _retry_after_s(value: str | None) -> float | None:
    """Read a Retry-After header, seconds or an HTTP date: at most 60 s. None where it cannot be read."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return None if math.isnan(seconds) else min(max(0.0, seconds), MAX_RETRY_AFTER_S)
