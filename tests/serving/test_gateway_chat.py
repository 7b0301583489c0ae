"""A real gateway process in front of a real upstream: what reaches the model, and what comes back."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from serving.gateway.process import Gateway
from share4video.chat import PRE_QUERY
from share4video.media.compose import frame_grid
from share4video.media.decode import uniform_frames
from share4video.media.sampling import uniform_indices
from tests.serving.clips import FRAMES, HEIGHT, WIDTH, grey_level
from tests.serving.media_host import MediaHost
from tests.serving.upstream_host import MODEL, MODEL_NAME, WORDS, UpstreamHost

QUESTION = "What happens?"


def asked(address: str, question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    content = [{"type": "video_url", "video_url": {"url": address}}, {"type": "text", "text": question}]
    return {"model": MODEL_NAME, "messages": [{"role": "user", "content": content}], **fields}


def post(gateway: Gateway, body: dict[str, Any], route: str = "/v1/chat/completions") -> httpx.Response:
    return httpx.post(gateway.url + route, json=body, timeout=30, trust_env=False)


def client(gateway: Gateway, prefix: str = "/v1") -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.url + prefix, api_key="none", max_retries=0)


def sent_image(body: dict[str, Any]) -> Image.Image:
    """Return the one image of an upstream request."""
    parts = [p for m in body["messages"] if isinstance(m["content"], list) for p in m["content"]]
    images = [part for part in parts if part["type"] != "text"]
    assert [part["type"] for part in images] == ["image_url"]
    header, _, data = images[0]["image_url"]["url"].partition(",")
    assert header == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("prefix", ["/v1", "/openai/v1"])
def test_a_clip_becomes_one_grid(
    gateway: Gateway, upstream: UpstreamHost, clip_uri: str, prefix: str
) -> None:
    body = asked(clip_uri, temperature=0.0, max_completion_tokens=9)
    completion = client(gateway, prefix).chat.completions.create(**body)
    assert completion.choices[0].message.content == "".join(WORDS)
    assert completion.model == MODEL_NAME
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 4

    (request,) = upstream.seen
    assert request["model"] == MODEL
    assert request["temperature"] == 0.0
    assert request["max_tokens"] == 9
    assert "max_completion_tokens" not in request
    (message,) = request["messages"]
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    assert message["content"][1]["text"] == PRE_QUERY + QUESTION

    image = sent_image(request)
    assert image.mode == "RGB"
    assert image.size == (4 * WIDTH + 3 * 50, 4 * HEIGHT + 3 * 50)
    pixels = np.asarray(image)
    for cell, index in enumerate(uniform_indices(FRAMES, 16)):
        row, column = divmod(cell, 4)
        middle = pixels[row * (HEIGHT + 50) + HEIGHT // 2, column * (WIDTH + 50) + WIDTH // 2]
        assert abs(int(middle[0]) - grey_level(index)) <= 1
    assert (pixels[HEIGHT : HEIGHT + 50] == 255).all()


def test_real_clips_give_the_very_grid_the_model_was_trained_on(
    gateway: Gateway, upstream: UpstreamHost, data_root: Path
) -> None:
    clip = min((data_root / "videos").glob("*.mp4"), key=lambda path: path.stat().st_size)
    address = "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()
    assert post(gateway, asked(address)).status_code == 200
    expected = frame_grid([frame.image for frame in uniform_frames(clip, 16)])
    assert np.array_equal(np.asarray(sent_image(upstream.seen[0])), np.asarray(expected))


def test_streams_are_passed_on_as_they_come(gateway: Gateway, upstream: UpstreamHost, clip_uri: str) -> None:
    upstream.step = threading.Semaphore(0)
    stream = client(gateway).chat.completions.create(**asked(clip_uri), stream=True)
    received = []
    for chunk in stream:
        assert chunk.model == MODEL_NAME
        received.append(chunk.choices[0].delta.content)
        assert upstream.sent == received  # the upstream waits: nothing after this word was written yet
        upstream.step.release()
    assert tuple(received) == WORDS
    assert not upstream.stalled
    assert upstream.seen[0]["stream"] is True


def test_a_client_that_leaves_ends_the_generation(
    gateway: Gateway, upstream: UpstreamHost, clip_uri: str
) -> None:
    upstream.step = threading.Semaphore(0)
    for _ in range(6):  # more than the gateway takes at a time: every place must be given back
        with client(gateway).chat.completions.create(**asked(clip_uri), stream=True) as stream:
            next(iter(stream))
        deadline = time.monotonic() + 10
        while in_flight(gateway) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert in_flight(gateway) == 0
    for _ in range(6 * len(WORDS)):
        upstream.step.release()
    assert upstream.dropped.wait(10)


@pytest.mark.parametrize("route", ["/v1/chat/completions", f"/v1/models/{MODEL_NAME}:predict"])
def test_an_abandoned_request_frees_its_place_and_the_model(
    gateway: Gateway, upstream: UpstreamHost, route: str
) -> None:
    upstream.hang = True
    body = {"messages": [{"role": "user", "content": QUESTION}], "instances": [{"question": QUESTION}]}
    data = json.dumps(body).encode()
    head = f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
    head += "Content-Type: application/json\r\n\r\n"
    for sent in range(1, 7):  # more than the gateway takes at a time
        upstream.dropped.clear()
        with socket.create_connection(("127.0.0.1", httpx.URL(gateway.url).port or 0)) as client:
            client.sendall(head.encode() + data)
            wait_until(lambda sent=sent: len(upstream.seen) == sent)
        assert upstream.dropped.wait(30)
    wait_until(lambda: in_flight(gateway) == 0)


def test_too_many_at_a_time_are_told_to_come_back(
    gateway: Gateway, upstream: UpstreamHost, clip_uri: str
) -> None:
    upstream.step = threading.Semaphore(0)
    streams = [client(gateway).chat.completions.create(**asked(clip_uri), stream=True) for _ in range(4)]
    refused = post(gateway, asked(clip_uri))
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    for _ in range(4 * len(WORDS)):
        upstream.step.release()
    assert all("".join(c.choices[0].delta.content for c in s) == "".join(WORDS) for s in streams)


def test_a_stream_that_breaks_off_says_so(gateway: Gateway, upstream: UpstreamHost, clip_uri: str) -> None:
    upstream.break_stream = True
    lines = [line for line in post(gateway, asked(clip_uri, stream=True)).text.splitlines() if line]
    assert len(lines) >= len(WORDS)
    assert "[DONE]" not in lines[-1]


def test_a_conversation_keeps_its_clip_in_the_first_turn(
    gateway: Gateway, upstream: UpstreamHost, clip_uri: str
) -> None:
    body = asked(clip_uri)
    body["messages"] += [
        {"role": "assistant", "content": "a circle moves"},
        {"role": "user", "content": "Which colour is it?"},
        {"role": "assistant", "content": "Best option:("},
    ]
    body["messages"].insert(0, {"role": "system", "content": "Be brief."})
    assert post(gateway, body).status_code == 200
    messages = upstream.seen[0]["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert messages[1]["content"][1]["text"] == PRE_QUERY + QUESTION
    assert [messages[i] for i in (0, 2, 3, 4)] == [body["messages"][i] for i in (0, 2, 3, 4)]
    sent_image(upstream.seen[0])


def test_an_image_is_forwarded_as_it_came(gateway: Gateway, upstream: UpstreamHost) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (20, 10), (9, 8, 7)).save(sink, format="PNG")
    address = "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()
    content = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": address}}]
    assert post(gateway, {"messages": [{"role": "user", "content": content}]}).status_code == 200
    image, text = upstream.seen[0]["messages"][0]["content"]
    assert image["image_url"]["url"] == address
    assert text == {"type": "text", "text": QUESTION}


def test_a_jpeg_of_several_pictures_is_forwarded_as_a_jpeg(gateway: Gateway, upstream: UpstreamHost) -> None:
    sink = io.BytesIO()
    first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    first.save(sink, "MPO", save_all=True, append_images=[second])
    address = "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()
    content = [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": QUESTION}]
    assert post(gateway, {"messages": [{"role": "user", "content": content}]}).status_code == 200
    assert upstream.seen[0]["messages"][0]["content"][0]["image_url"]["url"] == address


def test_switches_of_a_chat_template_are_passed_on(gateway: Gateway, upstream: UpstreamHost) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    switches = {"enable_thinking": False}
    assert post(gateway, {"messages": messages, "chat_template_kwargs": switches}).status_code == 200
    assert upstream.seen[0]["chat_template_kwargs"] == switches


def test_a_wrong_model_is_named_in_short(gateway: Gateway, upstream: UpstreamHost) -> None:
    answer = post(gateway, {"model": "x" * 100_000, "messages": [{"role": "user", "content": QUESTION}]})
    assert answer.status_code == 404
    assert len(answer.text) < 1000


def test_text_alone_is_forwarded(gateway: Gateway, upstream: UpstreamHost) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    assert post(gateway, {"messages": messages}).status_code == 200
    assert upstream.seen[0]["messages"] == messages


def test_local_files_below_the_root(gateway: Gateway, upstream: UpstreamHost, clip: Path) -> None:
    assert post(gateway, asked(clip.as_uri())).status_code == 200
    sent_image(upstream.seen[0])


@pytest.mark.parametrize(
    ("address", "status", "code"),
    [
        ("http://127.0.0.2:{port}/clip.mp4", 403, "media_private"),
        ("http://127.0.0.1:{port}/to?http://127.0.0.2:{port}/clip.mp4", 403, "media_private"),
        ("http://127.0.0.1:{port}/to?http://169.254.169.254/", 403, "media_host"),
        ("http://127.0.0.1:{port}/endless", 413, "media_too_big"),
        ("http://127.0.0.1:{port}/drip", 422, "media_timeout"),
        ("http://127.0.0.1:{port}/page", 415, "media_type"),
        ("http://127.0.0.1:{port}/clip.mp4", 422, "media_undecodable"),  # a header and nothing else
        ("https://a..example.org/clip.mp4", 422, "media_unreachable"),
        ("https://" + "a" * 70 + ".example.org/clip.mp4", 422, "media_unreachable"),
        ("file://[/x", 400, "media_address"),
        ("file:///etc/passwd", 403, "media_file"),
        ("s3://bucket/clip.mp4", 403, "media_store"),
        ("data:video/mp4;base64,AAAA", 415, "media_type"),
    ],
)
def test_refusals_are_sentences(
    gateway: Gateway, upstream: UpstreamHost, media: MediaHost, address: str, status: int, code: str
) -> None:
    answer = post(gateway, asked(address.format(port=media.port)))
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"].endswith(".")
    assert "Traceback" not in error["message"]
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[1]", 400),
        (b"[" * 100_000, 400),
        (b"{}", 400),
        (b'{"messages": []}', 400),
        (b'{"messages": [{"role": "user"}]}', 400),
        (b'{"messages": [{"role": "tool", "content": "x"}]}', 400),
        (b'{"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}', 400),
        (b'{"messages": [{"role": "user", "content": [{"type": ["text"]}]}]}', 400),
        (b'{"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}', 400),
        (b'{"model": "other", "messages": [{"role": "user", "content": "x"}]}', 404),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        (b'{"temperature": NaN, "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"logit_bias": {"1": 1e999}, "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"temperature": "x", "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"max_tokens": "lots", "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"max_tokens": -1, "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"max_tokens": true, "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"max_tokens": 257, "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"max_completion_tokens": 257, "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"stream": "false", "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"messages": [{"role": "user", "content": "what is <image>?"}]}', 400),
        (b'{"model": ["other"], "messages": [{"role": "user", "content": "x"}]}', 404),
        (b'{"generation_config": "{}", "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"chat_template": "{{ 1 }}", "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"chat_template_kwargs": {"a": "b"}, "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"mm_processor_kwargs": {"a": 1}, "messages": [{"role": "user", "content": "x"}]}', 400),
    ],
)
def test_requests_that_make_no_sense(
    gateway: Gateway, upstream: UpstreamHost, body: bytes, status: int
) -> None:
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", content=body, trust_env=False)
    assert answer.status_code == status
    assert answer.json()["error"]["message"].endswith(".")
    assert upstream.seen == []


def test_two_clips_are_refused(gateway: Gateway, upstream: UpstreamHost, clip_uri: str) -> None:
    body = asked(clip_uri)
    body["messages"][0]["content"].insert(0, body["messages"][0]["content"][0])
    answer = post(gateway, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "one_visual"


def test_a_body_over_the_limit_is_not_read(gateway: Gateway) -> None:
    block = b"x" * 65536

    def endless() -> Any:
        while True:
            yield block

    for route in ("/v1/chat/completions", f"/v1/models/{MODEL_NAME}:predict"):
        announced = httpx.post(gateway.url + route, content=b"x" * (5 << 20), trust_env=False)
        assert announced.status_code == 413
        try:
            lied = httpx.post(gateway.url + route, content=endless(), timeout=20, trust_env=False)
            assert lied.status_code == 413
        except (httpx.WriteError, httpx.ReadError):
            pass  # the gateway answered and hung up while we were still sending


@pytest.mark.parametrize("answer", [{"object": "error"}, {"choices": []}, {"choices": [{}]}, [1]])
def test_an_answer_that_is_no_completion(gateway: Gateway, upstream: UpstreamHost, answer: Any) -> None:
    upstream.refuse_with = (200, answer)
    messages = [{"role": "user", "content": QUESTION}]
    predict = f"/v1/models/{MODEL_NAME}:predict"
    for reply in (
        post(gateway, {"messages": messages}),
        post(gateway, {"instances": [{"question": QUESTION}]}, predict),
    ):
        assert reply.status_code == 502
        assert reply.json()["error"]["code"] == "upstream_broken"


def test_a_server_that_hangs_up_before_it_answers(gateway: Gateway, upstream: UpstreamHost) -> None:
    upstream.hang_up = True
    reply = post(gateway, {"messages": [{"role": "user", "content": QUESTION}]})
    assert reply.status_code == 502
    error = reply.json()["error"]
    assert (error["code"], "hung up; try again" in error["message"]) == ("upstream_broken", True)


def test_a_refusal_that_breaks_off(gateway: Gateway, upstream: UpstreamHost) -> None:
    upstream.refuse_with, upstream.cut_short = (400, {"error": "no"}), True
    reply = post(gateway, {"messages": [{"role": "user", "content": QUESTION}]})
    assert reply.status_code == 502
    assert reply.json()["error"]["code"] == "upstream_broken"


def test_fields_the_gateway_does_not_know_are_passed_on(gateway: Gateway, upstream: UpstreamHost) -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}], "top_k": 3, "max_tokens": 256, "stop": None}
    assert post(gateway, body).status_code == 200
    assert {name: upstream.seen[0][name] for name in body} == body


def test_an_upstream_in_trouble(gateway: Gateway, upstream: UpstreamHost, clip_uri: str) -> None:
    upstream.refuse_with = (422, {"detail": "max_tokens is too large"})
    for stream in (False, True):
        answer = post(gateway, asked(clip_uri, stream=stream))
        assert answer.status_code == 422
        assert "max_tokens is too large" in answer.json()["error"]["message"]
    upstream.refuse_with = (500, {"error": "a stack trace with secrets"})
    answer = post(gateway, asked(clip_uri))
    assert answer.status_code == 502
    assert "secrets" not in answer.text
    upstream.refuse_with = (429, {})
    assert post(gateway, asked(clip_uri)).status_code == 429


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def in_flight(gateway: Gateway) -> float:
    text = httpx.get(f"{gateway.url}/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith("share4video_gateway_in_flight ")]
    return float(lines[0].split()[1])
