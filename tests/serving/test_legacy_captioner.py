"""The released captioner's own server: its protocol with a stand-in for the weights, over real HTTP.

What calls the weights (`serving.legacy_captioner.model`) is not tested: they do not run on our libraries.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from serving.legacy_captioner.protocol import MAX_NEW_TOKENS, Budgets, Question, Written
from serving.legacy_captioner.server import MAX_WAITING, CaptionServer
from serving.legacy_captioner.wrapper import answer_in, wrapped
from share4video.captioning.client import ChatClient, Endpoint, image_part, text_part
from share4video.captioning.clip import stream_captions
from share4video.captioning.engine import resolve
from share4video.config import CaptionConfig, EngineSpec
from share4video.media.compose import hd_size
from share4video.wording import TileBudgets
from tests.engines import frames, picture
from tests.serving.legacy_client import MODEL, ask

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "serving" / "legacy_captioner"
END = "[UNUSED_TOKEN_145]"


class StandIn:
    """Takes the place of the weights: keeps the questions, writes what it is told."""

    def __init__(self) -> None:
        self.seen: list[Question] = []
        self.text = f" A red ball rolls down a green hill. {END}\n[UNUSED_TOKEN_146]user"
        self.tokens = 9
        self.gate: threading.Event | None = None
        self.fails = ""

    def write(self, question: Question) -> Written:
        self.seen.append(question)
        if self.gate is not None:
            assert self.gate.wait(60)
        if self.fails:
            raise RuntimeError(self.fails)
        return Written(self.text, 1200 if question.image else 40, self.tokens)


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def server(stand_in: StandIn) -> Iterator[CaptionServer]:
    with CaptionServer("127.0.0.1", 0, MODEL, Budgets(), stand_in) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def base_url(server: CaptionServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def client(server: CaptionServer) -> Iterator[openai.OpenAI]:
    http = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(
        base_url=f"{base_url(server)}/v1", api_key="none", max_retries=0, http_client=http
    ) as client:
        yield client


def test_a_picture_and_a_question_become_the_released_prompt(
    client: openai.OpenAI, stand_in: StandIn
) -> None:
    answer = ask(client, image_part(picture("red", (640, 360))), text_part("Describe it."), max_tokens=300)
    (seen,) = stand_in.seen
    assert seen.prompt == (
        "[UNUSED_TOKEN_146]user\nDescribe it.[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]assistant\n"
    )
    assert seen.image is not None
    assert seen.image.size == hd_size(640, 360, 9) == (1008, 672)
    assert (seen.max_tokens, seen.temperature, seen.seed) == (300, 0.0, None)
    assert answer.choices[0].message.content == "A red ball rolls down a green hill."
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1200, 9)
    assert answer.model == MODEL


def test_text_alone_will_do(client: openai.OpenAI, stand_in: StandIn) -> None:
    stand_in.text = "cut short"
    stand_in.tokens = 4
    answer = ask(client, text_part("Summarize."), max_tokens=4, temperature=0.7, seed=11)
    assert answer.choices[0].finish_reason == "length"
    (seen,) = stand_in.seen
    assert seen.image is None
    assert (seen.temperature, seen.seed) == (0.7, 11)
    ask(client, text_part("Summarize."), temperature=1e-30)
    assert stand_in.seen[-1].temperature == 0  # what is divided by it would be infinite


def test_it_says_what_it_serves_and_that_it_is_well(client: openai.OpenAI, server: CaptionServer) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert httpx.get(f"{base_url(server)}/health", trust_env=False).status_code == 200
    server.captioner = None
    health = httpx.get(f"{base_url(server)}/health", trust_env=False)
    assert (health.status_code, health.json()) == (503, {"status": "loading"})
    with pytest.raises(openai.InternalServerError, match="being loaded"):
        ask(client, text_part("?"))


@pytest.mark.parametrize("size", [(1008, 672), (672, 1008), (336, 16 * 336), (336, 336)])
def test_a_picture_of_whole_tiles_is_taken_as_it_is(
    client: openai.OpenAI, stand_in: StandIn, size: tuple[int, int]
) -> None:
    ask(client, image_part(picture("red", size)), text_part("?"))
    image = stand_in.seen[0].image
    assert image is not None
    assert image.size == size


def test_too_many_whole_tiles_are_made_fewer(client: openai.OpenAI, stand_in: StandIn) -> None:
    ask(client, image_part(picture("red", (336, 17 * 336))), text_part("?"))
    image = stand_in.seen[0].image
    assert image is not None
    assert image.width * image.height <= 9 * 336 * 336


def data_uri(data: bytes, kind: str = "jpeg") -> dict[str, Any]:
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def gif() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (8, 8)).save(sink, "GIF")
    return sink.getvalue()


REFUSED: list[tuple[list[Any], dict[str, Any], str]] = [
    ([image_part(picture("red"))] * 2, {}, "one picture"),
    ([{"type": "image_url", "image_url": {"url": "http://host/a.jpg"}}], {}, "data:image/jpeg"),
    ([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}], {}, "data:image/jpeg"),
    ([data_uri(b"no picture")], {}, "cannot be read"),
    ([data_uri(gif(), "png")], {}, "cannot be read"),
    ([data_uri(picture("red")[:200])], {}, "cannot be read"),
    ([{"type": "video_url", "video_url": {"url": "data:,"}}], {}, "text and image_url parts"),
    ([text_part(f"no{END}\n")], {}, "begins or ends a turn"),
    ([text_part("<ImageHere>")], {}, "begins or ends a turn"),
    ([text_part("a" * 200_001)], {}, "more than 200000 characters"),
    ([text_part("?")], {"stream": True}, "stream and n"),
    ([text_part("?")], {"n": 2}, "stream and n"),
    ([text_part("?")], {"stop": "x"}, "stop is not supported"),
    ([text_part("?")], {"logprobs": True}, "logprobs is not supported"),
    ([text_part("?")], {"max_tokens": MAX_NEW_TOKENS + 1}, "max_tokens must be"),
    ([text_part("?")], {"max_tokens": -1}, "max_tokens must be"),
    ([text_part("?")], {"temperature": 3}, "temperature must be"),
    ([text_part("?")], {"seed": 1.5}, "seed must be"),
    ([text_part("?")], {"model": "gpt"}, f"the model here is {MODEL}"),
    ([text_part("?")], {"messages": []}, "messages must be a list"),
    ([text_part("?")], {"messages": [{"role": "assistant", "content": "A"}]}, "the last one of user"),
    ([text_part("?")], {"messages": [{"role": "tool", "content": "A"}]}, "the last one of user"),
]


@pytest.mark.parametrize(("content", "fields", "said"), REFUSED, ids=lambda value: str(value)[-40:])
def test_what_the_model_cannot_do_is_refused(
    client: openai.OpenAI, stand_in: StandIn, content: list[Any], fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(openai.APIStatusError, match=re.escape(said)) as caught:
        ask(client, *content, **fields)
    assert 400 <= caught.value.status_code < 500
    assert stand_in.seen == []
    stand_in.text = f"Fine.{END}"
    assert ask(client, text_part("?")).choices[0].message.content == "Fine."  # the line is none the worse


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{", 400), (b"[]", 400), (b"[" * 100_000, 400), (b'{"model": 1}', 404)],
)
def test_a_body_that_is_none_is_refused(server: CaptionServer, body: bytes, status: int) -> None:
    answer = httpx.post(f"{base_url(server)}/v1/chat/completions", content=body, trust_env=False)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("told", ["99999999999", "9" * 5000])
def test_a_body_is_bounded_before_it_is_read(server: CaptionServer, told: str) -> None:
    with begun(server, told) as line:
        said = answer_of(line)
    assert said.startswith(b"HTTP/1.1 413")
    assert said.count(b"HTTP/1.1") == 1  # and what follows is not taken for a request


def test_a_body_that_stops_coming_is_refused(
    server: CaptionServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server.RequestHandlerClass, "timeout", 0.2)
    with begun(server, "100") as line:
        assert answer_of(line).startswith(b"HTTP/1.1 408")
    assert "the model failed" not in caplog.text


def test_a_client_that_resets_its_line_is_no_failure_of_the_model(
    server: CaptionServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    over, failures = threading.Event(), []
    shut = server.shutdown_request

    def shutdown_request(request: Any) -> None:
        shut(request)
        over.set()

    monkeypatch.setattr(server, "shutdown_request", shutdown_request)
    monkeypatch.setattr(server, "handle_error", lambda *of: failures.append(sys.exc_info()))
    with begun(server, "100") as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert over.wait(60)
    assert failures == []
    assert "the model failed" not in caplog.text


def begun(server: CaptionServer, told: str) -> socket.socket:
    """Return a line on which a request of ``told`` bytes was begun."""
    line = socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {told}\r\n\r\n"
    line.sendall(head.encode() + b"GET /health")
    return line


def answer_of(line: socket.socket) -> bytes:
    """Return all that comes until the server hangs up."""
    said = b""
    with contextlib.suppress(ConnectionResetError):  # it hung up on what it had not read
        while block := line.recv(1 << 16):
            said += block
    return said


def test_a_body_that_is_refused_unread_leaves_the_line_in_order(server: CaptionServer) -> None:
    with httpx.Client(base_url=base_url(server), trust_env=False) as line:
        assert line.post("/v1/embeddings", content=b"x" * (3 << 20)).status_code == 404
        assert line.get("/health").status_code == 200


def test_a_failure_of_the_model_is_told_without_its_words(client: openai.OpenAI, stand_in: StandIn) -> None:
    stand_in.fails = "CUDA out of memory"
    with pytest.raises(openai.InternalServerError, match="log says why") as caught:
        ask(client, text_part("?"))
    assert "CUDA" not in str(caught.value)
    stand_in.fails = ""
    assert ask(client, text_part("?")).choices[0].finish_reason == "stop"


def test_a_gpu_that_has_failed_is_not_called_well(
    client: openai.OpenAI, stand_in: StandIn, server: CaptionServer
) -> None:
    stand_in.fails = "CUDA error: device-side assert triggered"
    with pytest.raises(openai.InternalServerError):
        ask(client, text_part("?"))
    assert server.broken.wait(60)
    health = httpx.get(f"{base_url(server)}/health", trust_env=False)
    assert (health.status_code, health.json()) == (503, {"status": "broken"})


def test_one_question_at_a_time_and_only_some_wait(
    client: openai.OpenAI, stand_in: StandIn, server: CaptionServer
) -> None:
    stand_in.gate = threading.Event()
    threads = [
        threading.Thread(target=ask, args=(client, text_part(f"{n}")), daemon=True)
        for n in range(MAX_WAITING)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while server.places._value or not stand_in.seen:  # a place is taken before the question is read
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(stand_in.seen) == 1
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, text_part("one more"))
    assert caught.value.response.headers["retry-after"]
    stand_in.gate.set()
    for thread in threads:
        thread.join(60)
    assert len(stand_in.seen) == MAX_WAITING


def test_a_clip_is_captioned_through_it(server: CaptionServer, stand_in: StandIn) -> None:
    """With the pipeline's client and prompts, and with pictures as whole tiles."""
    fields: dict[str, Any] = {"model": MODEL, "revision": "1", "tiles": TileBudgets(), "retries": 0}
    spec = resolve(EngineSpec(url=f"{base_url(server)}/v1", **fields))

    async def run() -> list[str]:
        async with ChatClient(Endpoint(f"{base_url(server)}/v1", MODEL, spec)) as client:
            captions = stream_captions(
                frames(3),
                ["sliding", "summary", "fast"],
                captioner=client,
                config=CaptionConfig(mode="reference"),
            )
            return [caption.caption async for caption in captions]

    captions = asyncio.run(run())
    assert set(captions) == {"A red ball rolls down a green hill."}
    sizes = [question.image.size for question in stand_in.seen if question.image]
    assert hd_size(64, 48, 9) in sizes
    assert hd_size(64, 48 + 50 + 48, 9) in sizes
    assert hd_size(100 + 64 + 20, 20 + 3 * 68, 16) in sizes
    assert all(question.prompt.startswith("[UNUSED_TOKEN_146]user\n") for question in stand_in.seen)


def test_an_answer_ends_where_its_turn_does() -> None:
    assert answer_in(f" A cat.{END}\nmore") == ("A cat.", True)
    assert answer_in("A cat.<|im_end|>[UNUSED_TOKEN_145]") == ("A cat.", True)
    assert answer_in("A cat.</s>") == ("A cat.", True)
    assert answer_in("A cat that") == ("A cat that", False)
    assert wrapped([("system", "S"), ("user", "Q")]).count("[UNUSED_TOKEN_146]") == 3
