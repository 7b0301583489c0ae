from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pytest

from share4video.captioning.client import (
    CallError,
    ChatClient,
    ChatRequest,
    Completion,
    Endpoint,
    image_part,
    text_part,
)
from share4video.captioning.engine import answer_all, resolve
from share4video.config import EngineSpec
from share4video.errors import UserError
from tests.engines import FakeEngine, picture, running_fake_engine

T = TypeVar("T")
HELLO = ChatRequest([{"role": "user", "content": "hello"}], max_tokens=16)


def run(endpoint: Endpoint, talk: Callable[[ChatClient], Awaitable[T]]) -> T:
    async def inside() -> T:
        async with ChatClient(endpoint, backoff_s=0.01) as client:
            return await talk(client)

    return asyncio.run(inside())


def ask(endpoint: Endpoint, request: ChatRequest = HELLO) -> Completion:
    return run(endpoint, lambda client: client.ask(request))


def test_a_request_carries_what_it_says_and_nothing_else(fake_engine: FakeEngine) -> None:
    image = picture("red")
    content = [image_part(image), text_part("what is it?")]
    request = ChatRequest(
        [{"role": "user", "content": content}],
        max_tokens=9,
        temperature=0.7,
        seed=5,
        prefill="It is",
        frequency_penalty=0.3,
    )
    completion = ask(fake_engine.endpoint(), request)
    assert completion.text.endswith("of 1 images.")
    assert completion.completion_tokens == 5
    assert not completion.truncated
    (call,) = fake_engine.calls()
    assert call["prompt"] == "what is it?\nIt is"
    assert call["roles"] == ["user", "assistant"]
    sampling = {"temperature": 0.7, "seed": 5, "frequency_penalty": 0.3}
    assert call["body"] == {"model": "fake", "max_tokens": 9, **sampling}


def test_a_greedy_request_names_no_seed(fake_engine: FakeEngine) -> None:
    ask(fake_engine.endpoint())
    assert fake_engine.calls()[0]["body"] == {"model": "fake", "max_tokens": 16, "temperature": 0.0}


def test_an_answer_cut_at_the_limit_is_reported(fake_engine: FakeEngine) -> None:
    fake_engine.settings(finish_reason="length")
    assert ask(fake_engine.endpoint()).truncated


@pytest.mark.parametrize("fault", ["http_429", "http_500", "drop", "garbage", "truncated"])
def test_what_may_pass_is_tried_again(fake_engine: FakeEngine, fault: str) -> None:
    fake_engine.settings(faults={fault: 0.5}, seed=3)
    for _ in range(4):
        assert ask(fake_engine.endpoint(retries=20)).text
    assert len(fake_engine.calls()) > 4


def test_a_hang_ends_at_the_deadline(fake_engine: FakeEngine) -> None:
    fake_engine.settings(faults={"hang": 1.0})
    started = time.monotonic()
    with pytest.raises(CallError, match=r"no answer within 0\.2 s") as caught:
        ask(fake_engine.endpoint(request_timeout_s=0.2, retries=1))
    assert caught.value.reason == "timeout"
    assert time.monotonic() - started < 1.5
    assert len(fake_engine.calls()) == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_cannot_pass_is_not_tried_again(fake_engine: FakeEngine, status: int) -> None:
    fake_engine.settings(status=status)
    with pytest.raises(CallError, match=f"HTTP {status}") as caught:
        ask(fake_engine.endpoint())
    assert caught.value.reason == "refused"
    assert len(fake_engine.calls()) == 1


@pytest.mark.parametrize(("status", "word"), [(401, "key"), (403, "forbids"), (404, "no such model")])
def test_a_persons_mistake_stops_the_run(fake_engine: FakeEngine, status: int, word: str) -> None:
    fake_engine.settings(status=status)
    with pytest.raises(UserError, match=word):
        ask(fake_engine.endpoint())
    assert len(fake_engine.calls()) == 1


@pytest.mark.parametrize("header", ["0.4", "Fri, 01 Jan 1999 00:00:00 GMT", "soon", None])
def test_retry_after_is_honoured_where_it_can_be_read(fake_engine: FakeEngine, header: str | None) -> None:
    fake_engine.settings(first_status=[429], retry_after=header)
    ask(fake_engine.endpoint())
    first, second = (call["at"] for call in fake_engine.calls())
    assert second - first >= (0.4 if header == "0.4" else 0.0)


def test_retries_end(fake_engine: FakeEngine) -> None:
    fake_engine.settings(status=503)
    with pytest.raises(CallError, match="HTTP 503") as caught:
        ask(fake_engine.endpoint(retries=2))
    assert caught.value.reason == "unavailable"
    assert len(fake_engine.calls()) == 3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"status": 503}, "HTTP 503"),
        ({"status": 422}, "HTTP 422"),
        ({"faults": {"hang": 1.0}}, "no answer"),
        ({"faults": {"drop": 1.0}}, "no connection"),
        ({"faults": {"garbage": 1.0}}, "not a chat completion"),
        ({"answer": "x" * (9 << 20)}, f"more than {8 << 20} bytes"),
    ],
)
def test_what_may_be_published_of_a_failure_names_no_address(
    fake_engine: FakeEngine, settings: dict[str, Any], sentence: str
) -> None:
    fake_engine.settings(**settings)
    with pytest.raises(CallError, match=f"^{sentence} .*{fake_engine.base_url}") as caught:
        ask(fake_engine.endpoint(retries=0, request_timeout_s=1.0))
    assert caught.value.sentence == sentence


def test_a_call_ends_in_time_whatever_its_retries(fake_engine: FakeEngine) -> None:
    fake_engine.settings(status=503)
    with pytest.raises(CallError, match=r"no answer within 0\.4 s") as caught:
        ask(fake_engine.endpoint(retries=20, call_timeout_s=0.4))
    assert caught.value.reason == "timeout"
    assert len(fake_engine.calls()) < 20


def test_waiting_for_a_slot_is_no_part_of_a_call(fake_engine: FakeEngine) -> None:
    fake_engine.settings(latency_s=0.2)
    endpoint = fake_engine.endpoint(max_in_flight=1, request_timeout_s=1.5, call_timeout_s=1.5, retries=0)
    answers = answer_all(endpoint, {str(n): lambda: HELLO for n in range(12)})
    assert all(isinstance(answer, Completion) for answer in answers.values())


@pytest.mark.parametrize(("header", "asked_s"), [("1e9", 60.0), ("inf", 60.0), ("nan", None), ("-3", 0.0)])
def test_what_an_endpoint_may_ask_for_is_bounded(
    fake_engine: FakeEngine, header: str, asked_s: float | None
) -> None:
    fake_engine.settings(status=429, retry_after=header)
    with pytest.raises(CallError) as caught:
        ask(fake_engine.endpoint(retries=0))
    assert caught.value.retry_after_s == asked_s


def test_nobody_listens() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port, nobody answers
        taken.bind(("127.0.0.1", 0))
        spec = EngineSpec(url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1", model="none", retries=1)
        with pytest.raises(CallError, match="no connection") as caught:
            ask(Endpoint(str(spec.url), "none", resolve(spec)))
    assert caught.value.reason == "unavailable"


def test_an_endless_answer_is_cut_off(fake_engine: FakeEngine) -> None:
    fake_engine.settings(answer="x" * (9 << 20))
    with pytest.raises(CallError, match="more than"):
        ask(fake_engine.endpoint(retries=0))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/health", "file:///etc/passwd"])
def test_images_are_never_fetched_by_the_engine(fake_engine: FakeEngine, url: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    with pytest.raises(ValueError, match="data:"):
        ask(fake_engine.endpoint(), ChatRequest([{"role": "user", "content": content}], 4))
    assert fake_engine.calls() == []


def test_an_image_is_a_png_or_a_jpeg() -> None:
    with pytest.raises(ValueError, match="PNG or a JPEG"):
        image_part(b"GIF89a")


def test_answers_land_on_their_requests_and_no_more_are_in_flight_than_allowed(
    fake_engine: FakeEngine,
) -> None:
    def build(name: str) -> Callable[[], ChatRequest]:
        return lambda: ChatRequest([{"role": "user", "content": f"request {name}"}], 8)

    names = [f"{n}" for n in range(40)]
    endpoint = fake_engine.endpoint(max_in_flight=5)
    calm = answer_all(endpoint, {name: build(name) for name in names})
    fake_engine.settings(jitter_s=0.05)
    seen: list[tuple[int, int]] = []
    mixed = answer_all(endpoint, {name: build(name) for name in names}, progress=lambda *at: seen.append(at))
    assert list(mixed) == names
    assert mixed == calm
    assert len({answer.text for answer in mixed.values() if isinstance(answer, Completion)}) == 40
    assert fake_engine.most_in_flight() == 5
    assert seen == [(n, 40) for n in range(1, 41)]


def test_one_refused_request_leaves_the_others_their_answers(fake_engine: FakeEngine) -> None:
    fake_engine.settings(bad_prompt="bad")

    def build(text: str) -> ChatRequest:
        return ChatRequest([{"role": "user", "content": text}], 8)

    answers = answer_all(fake_engine.endpoint(), {text: partial(build, text) for text in ("good", "bad")})
    assert isinstance(answers["good"], Completion)
    assert isinstance(answers["bad"], CallError)


def test_an_engine_that_answers_nothing_is_a_users_error(fake_engine: FakeEngine) -> None:
    fake_engine.settings(status=500)
    with pytest.raises(UserError, match="does not answer"):
        answer_all(fake_engine.endpoint(retries=0), {"a": lambda: HELLO})


def test_replicas_share_the_work(fake_engine: FakeEngine) -> None:
    fake_engine.settings(latency_s=0.05)
    with running_fake_engine() as other:
        other.settings(latency_s=0.05)
        endpoint = replace(fake_engine.endpoint(max_in_flight=4), replicas=(other.base_url,))
        answers = answer_all(endpoint, {str(n): lambda: HELLO for n in range(20)})
        assert all(isinstance(answer, Completion) for answer in answers.values())
        counts = [len(engine.calls()) for engine in (fake_engine, other)]
        assert sum(counts) == 20
        assert min(counts) >= 5
        assert max(engine.most_in_flight() for engine in (fake_engine, other)) == 2


def test_a_replica_that_is_gone_gets_no_more_than_one_call(fake_engine: FakeEngine) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        gone = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        spec_fields = {"max_in_flight": 2, "retries": 1}
        endpoint = replace(
            fake_engine.endpoint(**spec_fields), base_url=gone, replicas=(fake_engine.base_url,)
        )
        answers = answer_all(endpoint, {str(n): lambda: HELLO for n in range(6)})
    assert all(isinstance(answer, Completion) for answer in answers.values())
    assert len(fake_engine.calls()) == 6
