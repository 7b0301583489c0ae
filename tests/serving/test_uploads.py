"""Bodies are bounded together and in time, on every route, before they take a place."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from serving.gateway.process import Gateway, free_port, gateway_process
from serving.gateway.settings import GatewaySettings
from tests.serving.upstream_host import UpstreamHost

MIB = 1 << 20
ROUTES = ("/v1/chat/completions", "/v1/models/m:predict", "/v2/models/m/infer")


@pytest.fixture(scope="module")
def narrow(running_upstream: UpstreamHost, folder: Path) -> Iterator[Gateway]:
    """A gateway that holds two places and 4 MiB of bodies, and waits 8 seconds for the next byte."""
    settings = GatewaySettings(
        upstream_url=running_upstream.base_url,
        model_name="m",
        host="127.0.0.1",
        port=free_port(),
        max_in_flight=2,
        max_body_bytes=3 * MIB,
        max_buffered_bytes=4 * MIB,
        upload_stall_s=8.0,
        upload_timeout_s=20.0,
    )
    with gateway_process(settings, log=folder / "narrow.log") as running:
        yield running


def started(gateway: Gateway, route: str, announced: int, sent: int) -> socket.socket:
    """Return a connection on which a part of a body was sent."""
    client = socket.create_connection(("127.0.0.1", httpx.URL(gateway.url).port or 0), timeout=60)
    head = f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {announced}\r\n\r\n".encode())
    client.sendall(b"x" * sent)
    return client


def status_of(client: socket.socket) -> int:
    """Return the status of the answer that comes."""
    return int(client.makefile("rb").readline().split()[1])


def ask(gateway: Gateway, size: int = 10) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "x" * size}]}
    return httpx.post(f"{gateway.url}{ROUTES[0]}", json=body, timeout=60, trust_env=False)


@pytest.mark.parametrize("route", ROUTES)
def test_bodies_are_bounded_together(narrow: Gateway, upstream: UpstreamHost, route: str) -> None:
    for attempt in range(1, 11):
        with started(narrow, route, 3 * MIB, 3 * MIB - 1) as held:
            time.sleep(0.2 * attempt)  # the gateway reads; of two bodies that race either may find no room
            answer = ask(narrow, 2 * MIB)
            if answer.status_code == 200:
                continue
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "busy"
            held.sendall(b"x")
            assert status_of(held) in (400, 422)  # it was read, and is no JSON
            break
    else:
        pytest.fail("never were there too many bodies")
    assert ask(narrow, 2 * MIB).status_code == 200


@pytest.mark.parametrize("route", ROUTES)
def test_a_body_that_stalls_takes_no_place(narrow: Gateway, upstream: UpstreamHost, route: str) -> None:
    with ExitStack() as open_connections:
        stalled = [open_connections.enter_context(started(narrow, route, 100, 1)) for _ in range(4)]
        assert ask(narrow).status_code == 200  # both places are free
        assert [status_of(client) for client in stalled] == [408] * 4


def test_a_client_that_leaves_while_sending_leaves_nothing(narrow: Gateway, upstream: UpstreamHost) -> None:
    for _ in range(4):  # together more than the gateway holds
        started(narrow, ROUTES[1], 3 * MIB, 2 * MIB).close()
    answers = [ask(narrow, 2 * MIB).status_code for _ in range(3)]  # the last that left may still be there
    assert answers[-1] == 200
