"""``/v1/captions``: the captioner's roles."""

from __future__ import annotations

from contextlib import ExitStack

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from serving.gateway.admission import Admission
from serving.gateway.caption_requests import CaptionRequest
from serving.gateway.captioner import CaptionService
from serving.gateway.chat_requests import check_model, read_object
from serving.gateway.chat_routes import PREFIXES, EventStream


def caption_router(service: CaptionService, admission: Admission) -> APIRouter:
    """Build the routes."""

    async def captions(request: Request) -> Response:
        with ExitStack() as held:
            held.enter_context(admission.slot())
            asked = CaptionRequest.parse(await read_object(request))
            check_model({"model": asked.model}, service.settings.model_name)
            if not asked.streams:
                return JSONResponse(await service.answer(asked))
            events = await service.events(asked)
            return EventStream(events, held.pop_all())

    router = APIRouter(tags=["captions"])
    for prefix in PREFIXES:
        router.add_api_route(f"{prefix}/captions", captions, methods=["POST"], response_model=None)
    return router
