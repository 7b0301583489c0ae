"""Chat about a clip: the prompt the chat model was trained with, and a conversation with a served one.

A conversation sends the clip as ``video_url``; the gateway in front of the model samples its frames, lays
them out as one grid and puts the pre-query in front of the question, so that layout, prompt and weights
belong together. Code that composes the grid itself (training, evaluation) takes the prompt from here.
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from share4video.errors import UserError

if TYPE_CHECKING:
    from openai import OpenAI

# The released ShareGPT4Video-8B's own words (its system prompt is part of the checkpoint's chat template).
PRE_QUERY = (
    "The provided image arranges keyframes from a video in a grid view, keyframes are separated with white "
    "bands. Answer concisely with overall content and context of the video, highlighting any significant "
    "events, characters, or objects that appear throughout the frames."
)
SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the "
    "user provides, and assist the user with a variety of tasks using natural language."
)
GRID_FRAMES = 16

MAX_INLINE_BYTES = 64 << 20  # a larger clip does not fit a gateway's request body as a data: URI


def grid_question(question: str) -> str:
    """Return the text that stands after the grid image: pre-query and question, with nothing in between."""
    return PRE_QUERY + question


def video_address(video: str) -> str:
    """Return how ``video`` is named to a gateway: a URL as it is, a local file as a ``data:`` URI.

    Raises:
        UserError: the file cannot be read or is too large to send.
    """
    if "://" in video or video.startswith("data:"):
        return video
    path = Path(video)
    try:
        size = path.stat().st_size
        if size > MAX_INLINE_BYTES:
            raise UserError(
                f"the clip is {size} bytes, and at most {MAX_INLINE_BYTES} can be sent with a question",
                where=video,
                fix="trim it, or name it by a URL the gateway may read (file://, s3:// or https://)",
            )
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the clip: {error.strerror}", where=video, fix="check the path"
        ) from error
    kind = mimetypes.guess_type(path.name)[0] or ""
    mime = kind if kind.startswith("video/") else "application/octet-stream"
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


class Conversation:
    """A chat about one clip with the model behind an OpenAI-compatible address.

    Args:
        base_url: where the gateway answers; ``/v1`` is added where it is missing.
        video: the clip as the gateway is told it, see `video_address`.
        model: the served model's name; empty asks the address for the one it serves.
        system: what is said before the first turn; empty leaves it to the checkpoint's chat template.

    Raises:
        UserError: it is no address, or no model server answers there.
    """

    def __init__(
        self, base_url: str, video: str, *, model: str = "", system: str = "", timeout_s: float = 600.0
    ) -> None:
        self.base_url = model_address(base_url)
        self._client = _client(self.base_url, timeout_s)
        self.model = model or self._served_model()
        self._video: dict[str, Any] | None = {"type": "video_url", "video_url": {"url": video}}
        self.messages: list[Any] = [{"role": "system", "content": system}] if system else []

    def ask(self, question: str, *, max_tokens: int = 512) -> Iterator[str]:
        """Send the next question and yield the answer as it comes; the last yield ends the turn.

        Raises:
            UserError: the endpoint refused the question (in its own words) or went away.
        """
        import openai

        content: Any = question
        if self._video is not None:
            content = [self._video, {"type": "text", "text": question}]
        turn = [*self.messages, {"role": "user", "content": content}]
        answer = ""
        try:
            with self._client.chat.completions.create(
                model=self.model, messages=turn, max_tokens=max_tokens, temperature=0.0, stream=True
            ) as stream:
                for chunk in stream:
                    text = chunk.choices[0].delta.content if chunk.choices else None
                    if text:
                        answer += text
                        yield text
        except openai.APIError as error:
            raise self._complaint(error) from error
        self._video = None  # the clip stands in the first turn; later turns refer back to it
        self.messages = [*turn, {"role": "assistant", "content": answer}]

    def _served_model(self) -> str:
        import openai

        fix = "give the address of a gateway"
        try:
            listed = self._client.models.with_raw_response.list().http_response.json()
            served = [entry["id"] for entry in listed["data"]]
        except (openai.NotFoundError, ValueError, LookupError, TypeError) as error:  # a web server, perhaps
            raise UserError("what answers is no model server", where=self.base_url, fix=fix) from error
        except openai.APIError as error:
            raise self._complaint(error) from error
        if not served:
            raise UserError("the address names no model", where=self.base_url, fix=fix)
        return str(served[0])

    def _complaint(self, error: Exception) -> UserError:
        import openai

        if isinstance(error, openai.APIConnectionError):
            return UserError(
                "no model answers", where=self.base_url, fix="start one with share4video serve, or give --url"
            )
        body = getattr(error, "body", None)
        message = body.get("message") if isinstance(body, dict) else None
        status = error.status_code if isinstance(error, openai.APIStatusError) else 500
        if message and status < 500:
            return UserError(
                str(message).rstrip(".")
            )  # the caller's to mend: where and how is in the sentence
        return UserError(
            str(message or error).rstrip("."), where=self.base_url, fix="see the gateway's log for more"
        )


def model_address(url: str) -> str:
    """Return an OpenAI-compatible address with its ``/v1``. Raises UserError where it is no address."""
    trimmed = url.rstrip("/")
    try:
        parts = urlsplit(trimmed)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # half a bracket, a port that is no number
        whole = None
    if not whole:
        raise UserError("this is no address", where=url, fix="write it as http://HOST:PORT")
    return trimmed if trimmed.endswith("/v1") else f"{trimmed}/v1"


def _client(base_url: str, timeout_s: float) -> OpenAI:
    from openai import OpenAI

    return OpenAI(base_url=base_url, api_key="none", timeout=timeout_s, max_retries=1)
