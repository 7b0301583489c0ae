"""A chat request as one question to the model: what it may hold, and the answer as the protocol has it."""

from __future__ import annotations

import base64
import binascii
import io
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from serving.legacy_captioner.wrapper import SPECIAL, answer_in, wrapped
from share4video.media.compose import HD_TILE, hd_transform

MAX_BODY_BYTES = 32 << 20
MAX_TEXT = 200_000  # characters of all turns
MAX_PIXELS = 64_000_000  # of the picture as it comes
MAX_NEW_TOKENS = 2048  # the release's own bound, and the default
MAX_TEMPERATURE = 2.0
MIN_TEMPERATURE = 0.01  # below it is 0: scores are divided by it, in fp16
# frequency_penalty is taken and has no effect: beams are not penalised, and a temperature is what varies.
_FIELDS = {
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "seed",
    "frequency_penalty",
    "stream",
    "n",
    "user",
}


class Refused(Exception):
    """A request that is not answered, and why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Question:
    """What the model is asked.

    Attributes:
        prompt: the whole text with the wrapper's tokens; the picture stands before it.
        image: of whole tiles, within the budget; None where there is none.
        temperature: 0 for the released decoding, three beams; above it one is sampled.
    """

    prompt: str
    image: Image.Image | None
    max_tokens: int = MAX_NEW_TOKENS
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class Written:
    """What the model wrote: its raw text, and how many tokens it read and wrote."""

    text: str
    prompt_tokens: int
    completion_tokens: int


class Captioner(Protocol):
    """The model; it is asked one question at a time."""

    def write(self, question: Question) -> Written: ...


@dataclass(frozen=True)
class Budgets:
    """How many tiles pictures get.

    Attributes:
        most: a picture that comes as whole tiles, no more than these, is taken as it is: its sender has made
            the HD transform for its role (an engine's ``tiles``).
        other: any other picture is transformed to so many.
    """

    most: int = 16
    other: int = 9


def question(body: bytes, model: str, budgets: Budgets) -> Question:
    """Read a request.

    Raises:
        Refused: it is none, asks for what the model cannot do, or is too large.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(fields, dict):
        raise Refused(400, "the body is not an object")
    if fields.get("model") != model:
        raise Refused(404, f"the model here is {model}")
    unknown = sorted(set(fields) - _FIELDS)
    if unknown:
        raise Refused(400, f"{unknown[0]} is not supported")
    if fields.get("stream") or fields.get("n") not in (None, 1):
        raise Refused(400, "answers come one at a time and as a whole: stream and n are not supported")
    turns, image = _turns(fields.get("messages"))
    temperature = float(_number("temperature", fields.get("temperature") or 0, 0, MAX_TEMPERATURE))
    wanted = fields.get("max_completion_tokens") or fields.get("max_tokens") or MAX_NEW_TOKENS
    return Question(
        wrapped(turns),
        None if image is None else whole_tiles(_picture(image), budgets),
        _number("max_tokens", wanted, 1, MAX_NEW_TOKENS, whole=True),
        temperature if temperature >= MIN_TEMPERATURE else 0.0,
        None if fields.get("seed") is None else _number("seed", fields["seed"], 0, 2**63 - 1, whole=True),
    )


def _number(name: str, value: Any, least: float, most: float, *, whole: bool = False) -> Any:
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
        raise Refused(400, f"{name} must be {'a whole number ' if whole else ''}from {least:g} to {most:g}")
    return value


def _turns(messages: Any) -> tuple[list[tuple[str, str]], str | None]:
    """Return the turns as (role, text) and the picture's address: the model takes one, of the last turn."""
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages must be a list")
    turns, image = [], None
    for place, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        last = place == len(messages) - 1
        if role not in ("system", "user", "assistant") or (role == "user") < last:
            raise Refused(400, "turns are of system, user and assistant, the last one of user")
        text, pictures = _content(message.get("content"))
        if pictures and (not last or len(pictures) > 1):
            raise Refused(400, "the model takes one picture, in the last turn")
        image = pictures[0] if pictures else image
        turns.append((role, text))
    said = "".join(text for _, text in turns)
    if len(said) > MAX_TEXT:
        raise Refused(413, f"the texts have more than {MAX_TEXT} characters")
    if any(token in said for token in SPECIAL):
        raise Refused(400, "a text holds a token that begins or ends a turn")
    return turns, image


def _content(content: Any) -> tuple[str, list[str]]:
    if isinstance(content, str):
        return content, []
    texts, pictures = [], []
    for part in content if isinstance(content, list) else [None]:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                pictures.append(url)
            case _:
                raise Refused(400, "a turn's content is a text, or a list of text and image_url parts")
    return "".join(texts), pictures


def _picture(url: str) -> Image.Image:
    """Decode a picture that came with the request; nothing is fetched."""
    head, _, data = url.partition(",")
    if head not in ("data:image/jpeg;base64", "data:image/png;base64"):
        raise Refused(400, "pictures come as data:image/jpeg;base64 or data:image/png;base64 URIs")
    try:
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=["JPEG", "PNG"]) as found:
            if found.width * found.height > MAX_PIXELS:
                raise Refused(413, f"a picture has more than {MAX_PIXELS} pixels")
            return found.convert("RGB")
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise Refused(400, "the picture cannot be read") from None


def whole_tiles(image: Image.Image, budgets: Budgets) -> Image.Image:
    """Return a picture as whole tiles of 336 pixels: as it is where it is that already (see `Budgets`)."""
    columns, across = divmod(image.width, HD_TILE)
    rows, down = divmod(image.height, HD_TILE)
    if across == down == 0 and columns * rows <= budgets.most:
        return image
    return hd_transform(image, budgets.other)


def completion(written: Written, asked: Question, model: str) -> dict[str, Any]:
    """Return the answer as a chat completion."""
    text, ended = answer_in(written.text)
    cut = not ended and written.completion_tokens >= asked.max_tokens
    message = {"role": "assistant", "content": text}
    total = written.prompt_tokens + written.completion_tokens
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}],
        "usage": {
            "prompt_tokens": written.prompt_tokens,
            "completion_tokens": written.completion_tokens,
            "total_tokens": total,
        },
    }
