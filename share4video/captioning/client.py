"""The OpenAI chat-completions client every caption and answer goes through.

What may pass (429, 5xx, a dropped connection, a timeout, an answer that is not one) is retried with jitter,
honouring Retry-After; what cannot (400, 413, 422) fails at once; what is a person's mistake (401, 403, 404)
stops the run. Images go as ``data:`` URIs only: a server that fetches addresses can be made to fetch its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from share4video.captioning.calls import (
    CallError,
    ChatRequest,
    Completion,
    Message,
    Outcome,
    check_images,
    has_image,
    image_part,
    may_pass,
    read_answer,
    status_error,
    text_part,
)
from share4video.config import EngineSpec
from share4video.served_models import connection_options, http_library

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from tenacity import RetryCallState

__all__ = [
    "MAX_ANSWER_BYTES",
    "CallError",
    "ChatClient",
    "ChatRequest",
    "Completion",
    "Endpoint",
    "Message",
    "Outcome",
    "has_image",
    "image_part",
    "may_pass",
    "text_part",
]

MAX_ANSWER_BYTES = 8 << 20
_MAX_BACKOFF_S = 20.0


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
    ``spec.retries`` the attempts after the first, ``spec.call_timeout_s`` all of them with the waits between.
    Waiting for a slot is in none of these times.

    Args:
        backoff_s: the first wait between attempts, in seconds; it doubles, with jitter, up to 20 s.
    """

    def __init__(self, endpoint: Endpoint, *, backoff_s: float = 0.5) -> None:
        import openai

        self.endpoint, self.spec = endpoint, endpoint.spec
        self._backoff_s = backoff_s
        self._slots = asyncio.Semaphore(self.spec.max_in_flight)
        # no call is to wait for a connection: that would count as its time
        connections = http_library().Limits(max_connections=None, max_keepalive_connections=None)
        self._servers = [
            _Server(
                base_url,
                openai.AsyncOpenAI(
                    base_url=base_url,
                    api_key=endpoint.api_key,
                    max_retries=0,
                    timeout=self.spec.request_timeout_s,
                    http_client=openai.DefaultAsyncHttpxClient(
                        **connection_options(endpoint.base_url), follow_redirects=False, limits=connections
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

        retrying = AsyncRetrying(
            retry=retry_if_exception(may_pass),
            stop=stop_after_attempt(self.spec.retries + 1),
            wait=self.wait_s,
            reraise=True,
        )
        limit_s = self.spec.call_timeout_s
        async with self._slots:
            try:
                async with asyncio.timeout(limit_s):
                    completion: Completion = await retrying(self.attempt, request)
            except TimeoutError:
                raise self.no_answer(limit_s) from None
        return completion

    async def attempt(self, request: ChatRequest) -> Completion:
        """Send one chat request once, whoever else is sending.

        Raises:
            CallError: it failed this time.
            UserError: the engine refuses the key or knows neither model nor route.
            ValueError: an image is not a ``data:`` URI.
        """
        check_images(request.messages)
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
            return read_answer(bytes(body))
        except (TimeoutError, openai.APITimeoutError):
            raise self.no_answer(self.spec.request_timeout_s, server.base_url) from None
        except openai.APIStatusError as error:
            raise status_error(error.status_code, error.message, error.response.headers, where) from error
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise CallError("malformed", "not a chat completion", f"from {where}: {problem}") from error
        except openai.APIConnectionError as error:
            detail = f"to {where}: {error.__cause__ or error!r}"
            raise CallError("unavailable", "no connection", detail) from error
        except http_library().TransportError as error:  # the connection dropped while the answer was read
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

    def wait_s(self, state: RetryCallState) -> float:
        """Return how long to wait before the next attempt: what the endpoint asked for, and jitter."""
        from tenacity import wait_random_exponential

        error = state.outcome.exception() if state.outcome else None
        jittered: float = wait_random_exponential(multiplier=self._backoff_s, max=_MAX_BACKOFF_S)(state)
        asked = error.retry_after_s if isinstance(error, CallError) else None
        return jittered + (asked or 0.0)

    def no_answer(self, limit_s: float, base_url: str | None = None) -> CallError:
        """Return the failure of a call, or of one attempt at it, that took longer than it may."""
        where = f"{self.endpoint.model} at {base_url or self.endpoint.base_url}"
        return CallError("timeout", "no answer", f"within {limit_s:g} s from {where}", pushed_back=True)
