"""The models the app asks: where they are, what they are called and which clips they know."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from share4video.captioning.client import Endpoint
from share4video.captioning.domain_guard import Domain
from share4video.captioning.engine import API_KEY_VARIABLE, connect
from share4video.config import EngineSpec
from share4video.errors import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_START_ONE = "start one with share4video serve MODEL, or give the address of one that runs"
_LIST_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 10.0
_MAX_MESSAGE = 400  # characters of what a server says; some send a whole page


@dataclass
class ServedModel:
    """One model behind the OpenAI protocol. What it is called is asked until something answers.

    Args:
        url: its address, ending in ``/v1``.
        model: what it is called; empty asks the address.
        domain: which clips it knows, as far as is known here; a gateway guards its own model.
        spec: further fields of its `EngineSpec`.
        running: the endpoint of a model that this process serves.
    """

    url: str
    model: str = ""
    domain: Domain = "any"
    spec: dict[str, Any] = field(default_factory=dict)
    running: Endpoint | None = None

    async def endpoint(self) -> Endpoint:
        """Return the endpoint.

        Raises:
            UserError: nothing answers at the address, or it does not say which model it serves.
        """
        if self.running is None:
            model = self.model or await first_model(self.url)
            with connect(EngineSpec(url=self.url, model=model, **self.spec)) as endpoint:  # starts nothing
                self.running = endpoint
        return self.running

    async def greeting(self) -> str:
        """Return which model answers, and where.

        Raises:
            UserError: nothing answers at the address.
        """
        endpoint = await self.endpoint()
        if endpoint.spec.url is not None:
            await _listed(self.url)  # that it answered once says nothing about now
            return f"{endpoint.spec.model} at {self.url}"
        return f"{endpoint.spec.model}, served here"


async def first_model(url: str) -> str:
    """Return the name of the first model an address serves.

    Raises:
        UserError: nothing answers there, or it names no model.
    """
    listed = await _listed(url)
    try:
        served = [str(entry["id"]) for entry in listed["data"]]
    except (LookupError, TypeError) as error:  # a web server, perhaps
        raise UserError("what answers is no model server", where=url, fix=_START_ONE) from error
    if not served:
        fix = "name it with --chat-model or --caption-model"
        raise UserError("the address does not say which model it serves", where=url, fix=fix)
    return served[0]


@asynccontextmanager
async def asking(url: str, *, timeout_s: float, api_key: str = "") -> AsyncIterator[AsyncOpenAI]:
    """Give a client of an address, and say in a sentence what goes wrong inside the block.

    Args:
        timeout_s: how long nothing may come.
        api_key: the environment's where it is empty.

    Raises:
        UserError: nothing answers, the answer is late, broke off or is none, or the request is refused (in
            the server's own words).
    """
    import openai

    from share4video.captioning.client import http_library

    library = http_library()
    loopback = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    client = openai.AsyncOpenAI(
        base_url=url,
        api_key=api_key or os.environ.get(API_KEY_VARIABLE) or "none",
        max_retries=0,
        timeout=library.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S)),
        # a proxy from the environment cannot reach this machine's own servers
        http_client=openai.DefaultAsyncHttpxClient(trust_env=not loopback, follow_redirects=False),
    )
    try:
        async with client:
            yield client
    except openai.APITimeoutError as error:
        raise _late(url, timeout_s) from error
    except openai.APIConnectionError as error:
        raise UserError("no model answers", where=url, fix=_START_ONE) from error
    except openai.APIError as error:
        raise _refused(url, error) from error
    except library.TimeoutException as error:  # between two pieces of an answer
        raise _late(url, timeout_s) from error
    except (library.TransportError, ValueError, LookupError, TypeError, AttributeError) as error:
        fix = "ask again; if it stays so, see the model server's log"
        raise UserError("the answer broke off, or is none", where=url, fix=fix) from error


async def _listed(url: str) -> Any:
    async with asking(url, timeout_s=_LIST_TIMEOUT_S) as client:
        import openai

        try:
            return (await client.models.with_raw_response.list()).http_response.json()
        except (openai.NotFoundError, ValueError):  # no list of models, or a page
            return None


def _late(url: str, timeout_s: float) -> UserError:
    fix = "ask again when the model server has less to do, or start the app with a longer --timeout"
    return UserError(f"nothing came from the model within {timeout_s:g} seconds", where=url, fix=fix)


def _refused(url: str, error: Any) -> UserError:
    """Return what the server says; what is the asker's to mend comes in its own words."""
    import openai

    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else None
    said = " ".join(str(said or error).split()).rstrip(".")
    if len(said) > _MAX_MESSAGE:
        said = f"{said[:_MAX_MESSAGE]}…"
    status = error.status_code if isinstance(error, openai.APIStatusError) else 500
    if status in (401, 403):
        fix = f"start the app with {API_KEY_VARIABLE} set"
        return UserError(f"the model's server refuses the key: {said}", where=url, fix=fix)
    if status in (429, 503):
        return UserError(f"the model has too much to do: {said}", where=url, fix="ask again in a moment")
    if status < 500:
        return UserError(said)
    return UserError(
        f"the model's server failed: {said}", where=url, fix="ask again, or see that server's log for more"
    )
