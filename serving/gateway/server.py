"""The gateway as a KServe model server: health, readiness, metrics, ``:predict``, and our own routes.

``kserve.protocol.rest.openai`` needs vLLM, so the OpenAI routes are ours, included in KServe's application
before it registers its own: of two routes with one path, the first answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import kserve
from fastapi import APIRouter, FastAPI
from kserve.errors import InvalidInput
from kserve.model_server import app as kserve_app
from kserve.protocol.dataplane import DataPlane

from serving.gateway import predict_instances
from serving.gateway.admission import Admission
from serving.gateway.caption_routes import caption_router
from serving.gateway.captioner import CaptionService
from serving.gateway.chat_routes import ChatService, chat_router
from serving.gateway.client_watch import ClientWatch
from serving.gateway.metrics import CountRequests
from serving.gateway.predict_instances import AnswerInstance
from serving.gateway.refusal import Refusal, answer_refusal
from serving.gateway.settings import GatewaySettings
from serving.gateway.uploads import Uploads
from serving.gateway.upstream import Upstream
from serving.gateway.visual import VisualInput

GRACE_S = 20  # answers under way when the pod is told to stop
HEALTH_KEPT_S = 1.0
MAX_INSTANCES = 16


class GatewayModel(kserve.Model):
    """What KServe asks for readiness and hands ``:predict`` requests to.

    Args:
        upstreams: the models behind the gateway, all of which it needs to answer.
        answer: answers one instance, given its number and what the client sent.
    """

    def __init__(
        self, name: str, upstreams: Sequence[Upstream], admission: Admission, answer: AnswerInstance
    ) -> None:
        super().__init__(name)
        self.upstreams, self.admission, self.answer = upstreams, admission, answer
        self.ready = True
        self._healthy, self._asked_at = False, float("-inf")

    async def healthy(self) -> bool:
        """Whether every model behind the gateway answers; asked at most once a second."""
        if time.monotonic() - self._asked_at > HEALTH_KEPT_S:
            self._healthy = all(await asyncio.gather(*(one.healthy() for one in self.upstreams)))
            self._asked_at = time.monotonic()
        return self._healthy

    def load(self) -> bool:
        return True  # the weights are the upstream's to load

    async def predict(self, payload: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Answer ``{"instances": [...]}``; see `predict_instances` for what an instance holds.

        Predictions carry their instance's ``id``, where it has one. One bad instance refuses the request.
        """
        instances = payload.get("instances") if isinstance(payload, dict) else None
        if not isinstance(instances, list) or not 0 < len(instances) <= MAX_INSTANCES:
            raise InvalidInput(f"give a list of 1 to {MAX_INSTANCES} instances")
        predictions = []
        with self.admission.slot():
            for number, instance in enumerate(instances):
                if not isinstance(instance, dict):
                    raise InvalidInput(f"instance {number} is not an object")
                asked = {name: value for name, value in instance.items() if name != "id"}
                echo = {"id": instance["id"]} if "id" in instance else {}
                predictions.append(echo | await self.answer(number, asked))
        return {"predictions": predictions}


class GatewayDataPlane(DataPlane):
    """KServe's, but ready only while the model behind the gateway is."""

    def __init__(self, server: kserve.ModelServer, model: GatewayModel) -> None:
        super().__init__(model_registry=server.registered_models)
        self._gateway_model = model

    async def ready(self) -> bool:
        return await self._gateway_model.healthy()


class GatewayServer(kserve.ModelServer):
    """KServe's server, which knows no listening address but all of them, told to listen on ``host``."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(http_port=port, enable_grpc=False, workers=1, grace_period=GRACE_S)
        self.host = host

    def setup_event_loop(self) -> None:
        super().setup_event_loop()  # called between making the REST server and running it
        self._rest_server.config.host = self.host


def serve(settings: GatewaySettings) -> None:
    """Run the gateway until SIGTERM or SIGINT. Raises UserError where a setting names what is not there."""
    for client in ("httpx", "httpcore"):  # they tell whole addresses, those among them that are signed
        logging.getLogger(client).setLevel(logging.WARNING)
    upstream = Upstream.from_settings(settings)
    upstreams = [upstream]
    visual = VisualInput(settings)
    chat = ChatService(settings, upstream, visual)
    admission = Admission(settings.max_in_flight)
    routers = [_closed_routes(), chat_router(chat, admission)]
    answer = predict_instances.of_chat(chat)
    if settings.role == "captioner":
        captioner = CaptionService(settings, visual)
        upstreams += [one for one in [Upstream.of_summarizer(settings)] if one is not None]
        routers.append(caption_router(captioner, admission))
        answer = predict_instances.of_captioner(captioner)
    _include(kserve_app, settings, routers)
    model = GatewayModel(settings.model_name, upstreams, admission, answer)
    server = GatewayServer(settings.host, settings.port)
    server.dataplane = GatewayDataPlane(server, model)
    server.start([model])


def _include(app: FastAPI, settings: GatewaySettings, routers: Sequence[APIRouter]) -> None:
    """Add the gateway's routes, limits and answers to KServe's application."""
    app.add_middleware(ClientWatch)  # the last one added is the first to see a request
    app.add_middleware(Uploads, settings=settings)
    app.add_middleware(CountRequests)
    app.add_exception_handler(Refusal, answer_refusal)
    for router in routers:
        app.include_router(router)


def _closed_routes() -> APIRouter:
    """Close KServe's repository routes: anyone who reaches the gateway could unload its model with them."""

    async def closed(model_name: str) -> None:
        raise Refusal(403, "closed", f"{model_name} is loaded and unloaded by rolling the pod out")

    router = APIRouter()
    for verb in ("load", "unload"):
        router.add_api_route(f"/v2/repository/models/{{model_name}}/{verb}", closed, methods=["POST"])
    return router
