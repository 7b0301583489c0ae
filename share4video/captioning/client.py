"""The OpenAI chat-completions client every caption and answer goes through.

What may pass (429, 5xx, a dropped connection, a timeout, an answer that is not one) is retried with jitter,
honouring Retry-After; what cannot (400, 413, 422) fails at once; what is a person's mistake (401, 403, 404)
stops the run. Images go as ``data:`` URIs only: a server that fetches addresses can be made to fetch its own.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from share4video.config import EngineSpec
from share4video.errors import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from tenacity import RetryCallState

Message = Mapping[str, Any]
FailureReason = Literal["unavailable", "timeout", "malformed", "refused"]

MAX_ANSWER_BYTES = 8 << 20
MAX_RETRY_AFTER_S = 60.0
_MAX_BACKOFF_S = 20.0
_USER_MISTAKES = {
    401: ("the engine refused the key", "set SHARE4VIDEO_API_KEY"),
    403: ("the engine forbids this request", "check the key's rights"),
    404: ("the engine has no such model or route", "check the engine's url and model"),
}


@dataclass(frozen=True)
class Endpoint:
    """A running engine.

    Attributes:
        base_url: up to and including ``/v1``.
        model: the name requests use, which may differ from the one tables hold.
        spec: resolved, with model and revision.
        log: the local server's log, for error sentences.
        replicas: addresses of further servers of the same model, which share the work.
    """

    base_url: str
    model: str
    spec: EngineSpec
    log: str = ""
    api_key: str = field(default="none", repr=False)
    replicas: tuple[str, ...] = ()


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
    """

    def __init__(
        self, reason: FailureReason, sentence: str, detail: str = "", *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{sentence} {detail}".rstrip())
        self.reason: FailureReason = reason
        self.sentence, self.detail = sentence, detail
        self.retry_after_s = retry_after_s

    def bare(self) -> CallError:
        """Return a copy to keep: the original's traceback and cause hold the request with its pictures."""
        return CallError(self.reason, self.sentence, self.detail, retry_after_s=self.retry_after_s)

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


@dataclass
class _Server:
    """One of an endpoint's servers: how often it could not be reached, and how many requests it works on."""

    base_url: str
    client: AsyncOpenAI
    lost: int = 0
    in_flight: int = 0


class ChatClient:
    """Sends chat requests to one endpoint, at most ``spec.max_in_flight`` at a time.

    Of an endpoint with replicas, a request goes to the server that has the fewest, and to one that could not
    be reached only where all the others could not, either.

    Use as an async context manager, in one event loop. ``spec.request_timeout_s`` bounds each attempt,
    ``spec.retries`` the attempts after the first.

    Args:
        backoff_s: the first wait between attempts, in seconds; it doubles, with jitter, up to 20 s.
    """

    def __init__(self, endpoint: Endpoint, *, backoff_s: float = 0.5) -> None:
        import openai

        self.endpoint, self.spec = endpoint, endpoint.spec
        self._backoff_s = backoff_s
        self._slots = asyncio.Semaphore(self.spec.max_in_flight)
        loopback = urlsplit(endpoint.base_url).hostname in ("127.0.0.1", "localhost", "::1")
        self._servers = [
            _Server(
                base_url,
                openai.AsyncOpenAI(
                    base_url=base_url,
                    api_key=endpoint.api_key,
                    max_retries=0,
                    timeout=self.spec.request_timeout_s,
                    # a proxy from the environment cannot reach this machine's own servers
                    http_client=openai.DefaultAsyncHttpxClient(
                        trust_env=not loopback, follow_redirects=False
                    ),
                ),
            )
            for base_url in (endpoint.base_url, *endpoint.replicas)
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            await server.client.close()

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        prefill: str | None = None,
        frequency_penalty: float | None = None,
    ) -> Completion:
        """Send one chat request; see `ask`."""
        request = ChatRequest(messages, max_tokens, temperature, seed, prefill, frequency_penalty)
        return await self.ask(request)

    async def ask(self, request: ChatRequest) -> Completion:
        """Send one chat request and return its answer.

        Raises:
            CallError: it failed for good.
            UserError: the engine refuses the key or knows neither model nor route.
            ValueError: an image is not a ``data:`` URI.
        """
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

        _check_images(request.messages)
        retrying = AsyncRetrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(self.spec.retries + 1),
            wait=self._wait_s,
            reraise=True,
        )
        async with self._slots:
            completion: Completion = await retrying(self._attempt, request)
        return completion

    async def _attempt(self, request: ChatRequest) -> Completion:
        server = min(self._servers, key=lambda server: (server.lost, server.in_flight))
        server.in_flight += 1
        try:
            return await self._send(request, server)
        except CallError as error:
            server.lost += error.reason == "unavailable"
            raise
        finally:
            server.in_flight -= 1

    async def _send(self, request: ChatRequest, server: _Server) -> Completion:
        import openai

        where = f"{self.endpoint.model} at {server.base_url}"
        create = server.client.chat.completions.with_streaming_response.create
        try:
            async with (
                asyncio.timeout(self.spec.request_timeout_s),
                create(**self._body(request)) as response,
            ):
                body = bytearray()
                async for block in response.iter_bytes():
                    body += block
                    if len(body) > MAX_ANSWER_BYTES:
                        raise CallError("malformed", f"more than {MAX_ANSWER_BYTES} bytes", f"from {where}")
            return _read(bytes(body))
        except (TimeoutError, openai.APITimeoutError):
            detail = f"within {self.spec.request_timeout_s:g} s from {where}"
            raise CallError("timeout", "no answer", detail) from None
        except openai.APIStatusError as error:
            raise _status_error(error.status_code, error.message, error.response.headers, where) from error
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise CallError("malformed", "not a chat completion", f"from {where}: {problem}") from error
        except openai.APIConnectionError as error:
            detail = f"to {where}: {error.__cause__ or error!r}"
            raise CallError("unavailable", "no connection", detail) from error
        except _transport_error() as error:  # the connection dropped while the answer was read
            raise CallError("unavailable", "no connection", f"to {where} any more: {error!r}") from error

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        messages = list(request.messages)
        if request.prefill is not None:
            messages.append({"role": "assistant", "content": request.prefill})
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": messages,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        if request.frequency_penalty is not None:
            body["frequency_penalty"] = request.frequency_penalty
        if request.json_schema is not None:
            schema = {"name": "answer", "strict": True, "schema": request.json_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _wait_s(self, state: RetryCallState) -> float:
        from tenacity import wait_random_exponential

        error = state.outcome.exception() if state.outcome else None
        jittered: float = wait_random_exponential(multiplier=self._backoff_s, max=_MAX_BACKOFF_S)(state)
        asked = error.retry_after_s if isinstance(error, CallError) else None
        return jittered if asked is None else min(asked, MAX_RETRY_AFTER_S) + jittered


def _may_pass(error: BaseException) -> bool:
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


def _check_images(messages: Sequence[Message]) -> None:
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


def _read(body: bytes) -> Completion:
    """Check and read an answer. Raises ValidationError where it is not one."""
    answer = _Answer.model_validate_json(body)
    choice, usage = answer.choices[0], answer.usage or _Usage()
    return Completion(
        text=choice.message.content or "",
        finish_reason=choice.finish_reason or "stop",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


def _transport_error() -> type[Exception]:
    """Return the base error of the HTTP library under the client: httpx, or httpx2 in its later versions."""
    import openai

    package = openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]
    error: type[Exception] = sys.modules[package].TransportError
    return error


def _status_error(status: int, message: str, headers: Mapping[str, str], where: str) -> CallError | UserError:
    if status in _USER_MISTAKES:
        what, fix = _USER_MISTAKES[status]
        return UserError(what, where=where, fix=fix)
    sentence, detail = f"HTTP {status}", f"from {where}: {message[:300]}"
    if status in (408, 409, 425, 429) or status >= 500:
        wait_s = _retry_after_s(headers.get("retry-after"))
        return CallError("unavailable", sentence, detail, retry_after_s=wait_s)
    return CallError("refused", sentence, detail)


def _retry_after_s(value: str | None) -> float | None:
    """Read a Retry-After header: seconds, or an HTTP date. None where there is none that can be read."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
