"""The models the app asks: where they are, what they are called and which clips they know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from share4video.captioning.client import Endpoint
from share4video.captioning.domain_guard import Domain
from share4video.captioning.engine import connect
from share4video.config import EngineSpec
from share4video.errors import UserError
from share4video.served_models import (
    CONNECT_TIMEOUT_S,
    NO_KEY,
    ListedModel,
    connection_options,
    http_library,
    list_models,
    plain_errors,
)

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_NAMING = "name it with --chat-model or --caption-model"
_PATIENCE = "start the app with a longer --timeout"
_LIST_TIMEOUT_S = 10.0


@dataclass
class ServedModel:
    """One model behind the OpenAI protocol. What it is called is asked until something answers.

    Args:
        url: its address, ending in ``/v1``.
        model: what it is called; empty asks the address.
        domain: which clips it knows, as far as is known here; a gateway guards its own model.
        api_key: for this address alone.
        spec: further fields of its `EngineSpec`.
        running: the endpoint of a model that this process serves.
    """

    url: str
    model: str = ""
    domain: Domain = "any"
    api_key: str = field(default=NO_KEY, repr=False)
    spec: dict[str, Any] = field(default_factory=dict)
    running: Endpoint | None = None

    async def endpoint(self) -> Endpoint:
        """Return the endpoint.

        Raises:
            UserError: nothing answers at the address, or it does not say which model it serves.
        """
        if self.running is None:
            model = self.model or (await self._listed())[0].name
            spec = checked_spec({"url": self.url, "model": model, **self.spec}, where=self.url)
            with connect(spec) as endpoint:  # starts nothing
                self.running = replace(endpoint, api_key=self.api_key)
        return self.running

    async def greeting(self) -> str:
        """Return which model answers, and where.

        Raises:
            UserError: nothing answers at the address.
        """
        endpoint = await self.endpoint()
        if endpoint.spec.url is not None:
            await self._listed(named=True)  # that it answered once says nothing about now
            return f"{endpoint.spec.model} at {self.url}"
        return f"{endpoint.spec.model}, served here"

    async def _listed(self, *, named: bool = False) -> list[ListedModel]:
        return await asyncio.to_thread(
            list_models,
            self.url,
            naming=_NAMING,
            named=named,
            api_key=self.api_key,
            timeout_s=_LIST_TIMEOUT_S,
        )


def checked_spec(fields: Mapping[str, Any], *, where: str) -> EngineSpec:
    """Return an engine of these fields. Raises UserError, which says the first thing that is wrong."""
    try:
        return EngineSpec(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        what = f"the engine's {key} is wrong: {said}" if key else f"the engine is not asked like this: {said}"
        raise UserError(
            what, where=where, fix="choose other prompts (--dialect), or another --engine"
        ) from None


@asynccontextmanager
async def asking(url: str, *, timeout_s: float, api_key: str = NO_KEY) -> AsyncIterator[AsyncOpenAI]:
    """Give a client of an address, and say in a sentence what goes wrong inside the block.

    Args:
        timeout_s: how long nothing may come.

    Raises:
        UserError: nothing answers, the answer is late, broke off or is none, or the request is refused (in
            the server's own words).
    """
    import openai

    client = openai.AsyncOpenAI(
        base_url=url,
        api_key=api_key,
        max_retries=0,
        timeout=http_library().Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
        http_client=openai.DefaultAsyncHttpxClient(**connection_options(url), follow_redirects=False),
    )
    with plain_errors(url, timeout_s=timeout_s, patience=_PATIENCE):
        async with client:
            yield client
