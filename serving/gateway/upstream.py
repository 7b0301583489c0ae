"""The OpenAI endpoint behind the gateway: requests leave under its model name, answers under ours."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from serving.gateway.metrics import PHASE_SECONDS
from serving.gateway.refusal import Refusal
from serving.gateway.settings import GatewaySettings

logger = logging.getLogger(__name__)

HEALTH_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 5.0
KEPT_ALIVE_S = 2.0  # less than the 5 s after which uvicorn, on which most model servers run, hangs up
_MAX_ERROR_BYTES = 64 << 10


@dataclass
class Upstream:
    """One upstream model. The HTTP client is made on first use, inside the server's event loop.

    Args:
        base_url: address of its OpenAI routes, ending in ``/v1``.
        model: the name it knows its model by.
        shown_as: the name clients know the model by.
    """

    base_url: str
    model: str
    shown_as: str
    timeout_s: float
    api_key: str = ""
    _client: httpx.AsyncClient | None = None

    @classmethod
    def of_summarizer(cls, settings: GatewaySettings) -> Upstream | None:
        """Return the second model of a captioner, None where there is none."""
        if not settings.summarizer_url:
            return None
        model = settings.summarizer_model or settings.model_name
        return replace(cls.from_settings(settings), base_url=settings.summarizer_url.rstrip("/"), model=model)

    @classmethod
    def from_settings(cls, settings: GatewaySettings) -> Upstream:
        """Return the gateway's main model; it goes by the gateway's own name where it has no other."""
        return cls(
            base_url=settings.upstream_url.rstrip("/"),
            model=settings.upstream_model or settings.model_name,
            shown_as=settings.model_name,
            timeout_s=settings.upstream_timeout_s,
            api_key=settings.upstream_api_key.get_secret_value(),
        )

    async def healthy(self) -> bool:
        """Whether the upstream answers ``/health``; one that has no such route counts as alive."""
        try:
            answer = await self._http().get(health_address(self.base_url), timeout=HEALTH_TIMEOUT_S)
        except httpx.HTTPError:
            return False
        return is_healthy(answer)

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the chat completion for ``body``, which holds at least one message.

        Raises:
            Refusal: as ``stream`` does; or the answer is no chat completion (502).
        """
        response = await self._send({**body, "stream": False})
        try:
            answer = json.loads(await response.aread())
        except (httpx.HTTPError, ValueError, RecursionError) as error:
            raise Refusal(502, "upstream_broken", "the model's answer broke off") from error
        finally:
            await response.aclose()
        if not _is_completion(answer):
            raise Refusal(502, "upstream_broken", "what the model's server answered is no chat completion")
        return {**answer, "model": self.shown_as}

    async def stream(self, body: dict[str, Any]) -> UpstreamEvents:
        """Open the stream of server-sent events for ``body`` and return them as they come.

        The caller closes what is returned: that is what ends the generation upstream.

        Raises:
            Refusal: before the first event, where the upstream refuses (its own 4xx sentence is passed on),
                fails or hangs up (502), is not there (503) or is late (504). Later failures are an event in
                the stream.
        """
        return UpstreamEvents(await self._send({**body, "stream": True}), self.shown_as)

    async def _send(self, body: dict[str, Any]) -> httpx.Response:
        client = self._http()
        try:
            request = client.build_request(
                "POST", f"{self.base_url}/chat/completions", json={**body, "model": self.model}
            )
        except ValueError:  # a number too large, half a character
            raise Refusal(400, "bad_json", "the request holds what cannot be written as JSON") from None
        try:
            with PHASE_SECONDS.labels("upstream").time():
                response = await client.send(request, stream=True)
        except httpx.TimeoutException:
            raise Refusal(
                504, "upstream_timeout", f"the model did not answer in {self.timeout_s:g} seconds"
            ) from None
        except httpx.ConnectError as error:
            logger.warning("no connection to the model's server: %r", error)
            raise Refusal(503, "upstream_unreachable", "the model is not there; try again") from error
        except httpx.HTTPError as error:
            logger.warning("the model's server hung up before it answered: %r", error)
            raise Refusal(502, "upstream_broken", "the model's server hung up; try again") from error
        if response.status_code == 200:
            return response
        try:
            raise await _refused(response)
        finally:
            await response.aclose()

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
            timeout = httpx.Timeout(self.timeout_s, connect=CONNECT_TIMEOUT_S)
            limits = httpx.Limits(
                max_connections=None, max_keepalive_connections=32, keepalive_expiry=KEPT_ALIVE_S
            )
            self._client = httpx.AsyncClient(timeout=timeout, limits=limits, headers=headers, trust_env=False)
        return self._client


class UpstreamEvents:
    """Lines of an event stream, under the model name clients know.

    Not a generator: closing one that was never started would leave the response open, and the model at work
    for a client that left early.
    """

    def __init__(self, response: httpx.Response, shown_as: str) -> None:
        self._response, self._shown_as = response, shown_as

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for line in self._response.aiter_lines():
                yield self._renamed(line).encode() + b"\n"
        except httpx.HTTPError:
            broken = Refusal(502, "upstream_broken", "the model's answer broke off")
            yield b"data: " + json.dumps(broken.body()).encode() + b"\n\n"

    async def aclose(self) -> None:
        await self._response.aclose()

    def _renamed(self, line: str) -> str:
        if not line.startswith("data: {"):
            return line
        try:
            event = json.loads(line.removeprefix("data: "))
        except ValueError:
            return line
        if "model" not in event:
            return line
        event["model"] = self._shown_as
        return "data: " + json.dumps(event, ensure_ascii=False, separators=(",", ":"))


async def _refused(response: httpx.Response) -> Refusal:
    """Pass on what the caller can mend in the upstream's words; what is broken there is said in ours."""
    status = response.status_code
    if status == 429:
        return Refusal(429, "upstream_busy", "the model is busy; try again")
    if status not in (400, 413, 422):
        return Refusal(502, "upstream_failed", f"the model's server answered with status {status}")
    block = b""
    try:
        async for chunk in response.aiter_bytes():
            block += chunk
            if len(block) > _MAX_ERROR_BYTES:
                break
    except httpx.HTTPError:
        return Refusal(502, "upstream_broken", "the model's answer broke off")
    return Refusal(status, "upstream_refused", f"the model's server refused the request: {_sentence(block)}")


def _is_completion(answer: Any) -> bool:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    return (
        isinstance(choices, list)
        and bool(choices)
        and all(isinstance(one, dict) and isinstance(one.get("message"), dict) for one in choices)
    )


def _sentence(block: bytes) -> str:
    text = block.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except ValueError:
        return " ".join(text.split())[:300] or "no reason given"
    for key in ("error", "detail", "message"):
        if isinstance(body, dict) and key in body:
            body = body[key]
    return (body if isinstance(body, str) else json.dumps(body))[:300]


def health_address(base_url: str) -> str:
    """Return where the server of OpenAI routes at ``base_url`` tells its health.

    Raises:
        ValueError: ``base_url`` is no address.
    """
    parts = urlsplit(base_url)
    path = parts.path.removesuffix("/v1").removesuffix("/openai")
    return urlunsplit((parts.scheme, parts.netloc, f"{path}/health", "", ""))


def is_healthy(answer: httpx.Response) -> bool:
    """Whether a server that gave ``answer`` about its health may be asked; not all have such a route."""
    return answer.status_code < 400 or answer.status_code in (404, 405)
