"""What the gateway counts; KServe's own ``/metrics`` shows it beside the histograms of ``kserve.Model``."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUESTS = Counter(
    "share4video_gateway_requests", "Requests answered, by route and status.", ["route", "status"]
)
REFUSALS = Counter("share4video_gateway_refusals", "Requests refused, by code.", ["code"])
IN_FLIGHT = Gauge("share4video_gateway_in_flight", "Requests being worked on, streams included.")
PHASE_SECONDS = Histogram(
    "share4video_gateway_phase_seconds",
    "Time of one phase of a request: fetch, decode (with composing), upstream (to its first byte).",
    ["phase"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 600),
)


class CountRequests:
    """ASGI middleware: counts answers under their route's pattern, never under a path a client made up."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unknown")
                REQUESTS.labels(route, message["status"]).inc()
            await send(message)

        await self.app(scope, receive, counted)
