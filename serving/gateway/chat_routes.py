"""``/v1/chat/completions`` and ``/v1/models``, under both prefixes KServe's runtimes use."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any, Protocol

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from serving.gateway.admission import Admission
from serving.gateway.chat_requests import check_fields, check_model, read_object
from serving.gateway.messages import find_visual, with_image
from serving.gateway.refusal import Refusal
from serving.gateway.settings import GatewaySettings
from serving.gateway.upstream import Upstream
from serving.gateway.visual import VisualInput
from share4video.served_models import OWNER

PREFIXES = ("/v1", "/openai/v1")
SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # nginx would hold events back


class ChatService:
    """Answers chat requests: one clip or image in, one image to the upstream, its answer back."""

    def __init__(self, settings: GatewaySettings, upstream: Upstream, visual: VisualInput) -> None:
        self.settings, self.upstream, self.visual = settings, upstream, visual

    async def upstream_body(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return ``body`` as the upstream gets it. Raises Refusal where it cannot be served."""
        check_fields(body, self.settings.max_tokens)
        check_model(body, self.settings.model_name)
        messages = body.get("messages")
        visual = find_visual(messages)
        if visual is not None:
            if visual.kind == "video" and self.settings.role == "captioner":
                raise Refusal(400, "captioner", "this model captions clips: send them to /v1/captions")
            assert isinstance(messages, list)  # find_visual refused anything else
            messages = with_image(messages, visual, await self.visual.image(visual.address, visual.kind))
        changed = {**body, "messages": messages}
        # OpenAI's newer name for the same bound; not every server knows it.
        newer = changed.pop("max_completion_tokens", None)
        if newer is not None and changed.get("max_tokens") is None:
            changed["max_tokens"] = newer
        return changed

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the completion of ``body``. Raises Refusal where there is none."""
        return await self.upstream.complete(await self.upstream_body(body))


def chat_router(service: ChatService, admission: Admission) -> APIRouter:
    """Build the routes; include them before the model server registers its own ``/v1/models``."""
    settings = service.settings
    started = int(time.time())

    async def models() -> dict[str, Any]:
        """List the served model for OpenAI's clients (``data``) and for KServe's (``models``)."""
        entry = {"id": settings.model_name, "object": "model", "created": started, "owned_by": OWNER}
        return {"object": "list", "data": [entry], "models": [settings.model_name]}

    async def completions(request: Request) -> Response:
        with ExitStack() as held:
            held.enter_context(admission.slot())
            body = await read_object(request)
            prepared = await service.upstream_body(body)
            if not body.get("stream"):
                return JSONResponse(await service.upstream.complete(prepared))
            events = await service.upstream.stream(prepared)
            return EventStream(events, held.pop_all())

    router = APIRouter(tags=["OpenAI"])
    for prefix in PREFIXES:
        router.add_api_route(f"{prefix}/models", models, methods=["GET"])
        router.add_api_route(f"{prefix}/chat/completions", completions, methods=["POST"], response_model=None)
    return router


class Events(Protocol):
    """Encoded events, and a way to stop whoever makes them."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class EventStream(StreamingResponse):
    """Server-sent events, each sent as it comes.

    ``held`` (the request's place among those in flight) is let go and ``events`` is closed when the stream
    ends, or when the client leaves, even before the first event.
    """

    def __init__(self, events: Events, held: ExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers=SSE_HEADERS)
        self._events, self._held = events, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            try:
                await super().__call__(scope, receive, send)
            finally:
                await self._events.aclose()
