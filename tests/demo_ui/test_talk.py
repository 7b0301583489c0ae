"""Conversations about a picture, with a real HTTP server in the model's place."""

from __future__ import annotations

import asyncio
import base64
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import aclosing

import pytest
from PIL import Image

from share4video.captioning.client import Endpoint
from share4video.chat import PRE_QUERY, Conversation
from share4video.config import EngineSpec
from share4video.demo_ui.pictures import Picture
from share4video.demo_ui.served import ServedModel
from share4video.demo_ui.talk import Asked, Talk
from share4video.errors import UserError
from tests.serving.media_host import media_host
from tests.serving.upstream_host import MODEL, WORDS, UpstreamHost, upstream_host

ANSWER = "".join(WORDS)


@pytest.fixture(scope="module")
def running() -> Iterator[UpstreamHost]:
    with upstream_host() as host:
        yield host


@pytest.fixture
def upstream(running: UpstreamHost) -> UpstreamHost:
    running.reset()
    return running


def test_the_grid_is_one_image_and_the_pre_query_stands_before_the_first_question(
    upstream: UpstreamHost,
) -> None:
    talk = Talk(_picture("video"))
    assert _ask(talk, upstream, "What happens?", system="Be brief.") == ANSWER
    assert _ask(talk, upstream, "And then?") == ANSWER
    first, second = upstream.seen
    assert first["messages"][0] == {"role": "system", "content": "Be brief."}
    image, text = first["messages"][1]["content"]
    assert text["text"] == f"{PRE_QUERY}What happens?"
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert talk.picture is not None
    assert base64.b64decode(data) == talk.picture.image
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][0]["content"] == [image, text]
    assert second["messages"][1]["content"] == ANSWER
    assert second["messages"][2]["content"] == "And then?"
    assert first["temperature"] == 0.0 and first["max_tokens"] == 64


def test_an_image_is_asked_about_without_the_grids_pre_query(upstream: UpstreamHost) -> None:
    _ask(Talk(_picture("image")), upstream, "What is this?")
    assert upstream.seen[0]["messages"][0]["content"][1]["text"] == "What is this?"


def test_an_answer_is_made_again_without_the_old_one_in_the_conversation(upstream: UpstreamHost) -> None:
    talk = Talk(_picture("video"))
    _ask(talk, upstream, "What happens?")
    _ask(talk, upstream, "And then?")

    async def again() -> None:
        async for _ in talk.again(_endpoint(upstream.base_url), Asked()):
            pass

    asyncio.run(again())
    assert upstream.seen[2]["messages"] == upstream.seen[1]["messages"]
    assert [turn.question for turn in talk.turns] == ["What happens?", "And then?"]

    upstream.refuse_with = (500, {"error": {"message": "out of memory"}})
    with pytest.raises(UserError, match="out of memory"):
        asyncio.run(again())
    assert [turn.answer for turn in talk.turns] == [ANSWER, ANSWER]


def test_what_goes_wrong_with_the_model_is_one_sentence_and_leaves_no_turn(upstream: UpstreamHost) -> None:
    talk = Talk(_picture("video"))
    for refusal, sentence in [
        (
            (422, {"error": {"message": "nano knows only synthetic clips."}}),
            "^nano knows only synthetic clips.$",
        ),
        ((401, {"error": {"message": "bad key"}}), "refuses the key: bad key.*SHARE4VIDEO_API_KEY"),
        ((429, {"error": {"message": "busy"}}), "too much to do"),
        ((500, {"error": {"message": "x" * 9000}}), "the model's server failed: x{400}…"),
    ]:
        upstream.refuse_with = refusal
        with pytest.raises(UserError, match=sentence):
            _ask(talk, upstream, "What happens?")
        assert talk.turns == []
    upstream.reset()
    upstream.hang = True
    with pytest.raises(UserError, match=r"nothing came from the model within 0\.3 seconds.*--timeout"):
        _ask(talk, upstream, "What happens?", patience_s=0.3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(UserError, match=f"no model answers .{url}.*share4video serve"):
        _gather(talk, _endpoint(url), "What happens?", Asked())
    assert talk.turns == []


def test_what_came_before_a_broken_stream_stays(upstream: UpstreamHost) -> None:
    talk = Talk(_picture("video"))
    upstream.step = threading.Semaphore(2)  # the third word waits longer than the asker
    with pytest.raises(UserError, match="nothing came from the model within"):
        _ask(talk, upstream, "What happens?", patience_s=0.5)
    assert talk.turns[0].answer.startswith(WORDS[0] + WORDS[1])
    upstream.step.release(10)


def test_who_stops_listening_ends_the_answer_at_the_model_too(upstream: UpstreamHost) -> None:
    talk = Talk(_picture("video"))
    upstream.step = threading.Semaphore(0)

    async def leave() -> None:
        async with aclosing(talk.ask("What happens?", _endpoint(upstream.base_url), Asked())) as answers:
            async for _ in answers:
                break

    asyncio.run(leave())
    upstream.step.release(10)
    assert talk.turns[0].answer == WORDS[0]
    assert upstream.sent != list(WORDS) or upstream.dropped.wait(10)


def test_a_second_question_waits_for_the_first_answer(upstream: UpstreamHost) -> None:
    talk = Talk(_picture("video"))
    _ask(talk, upstream, "What happens?")
    upstream.step = threading.Semaphore(0)
    endpoint = _endpoint(upstream.base_url)

    async def interrupt() -> None:
        async with aclosing(talk.ask("What happens?", endpoint, Asked())) as answers:
            await anext(answers)
            for second in (talk.ask("And then?", endpoint, Asked()), talk.again(endpoint, Asked())):
                with pytest.raises(UserError, match="an answer is under way"):
                    await anext(second)
            assert [turn.answer for turn in talk.turns] == [ANSWER, WORDS[0]]
            talk.stop()  # the reader may hear of it late
            upstream.step = None
            assert [answer async for answer in talk.ask("And then?", endpoint, Asked())][-1] == ANSWER
            talk.about(talk.picture)
        assert talk.turns == []

    asyncio.run(interrupt())
    assert [message["role"] for message in upstream.seen[-1]["messages"]] == ["user", "assistant"] * 2 + [
        "user"
    ]
    assert all(message["content"] for message in upstream.seen[-1]["messages"])
    assert len(upstream.seen) == 3


def test_a_question_that_is_stopped_before_its_answer_leaves_nothing(upstream: UpstreamHost) -> None:
    talk = Talk(_picture("video"))
    upstream.hang = True

    async def stop() -> None:
        asking = asyncio.create_task(anext(talk.ask("What happens?", _endpoint(upstream.base_url), Asked())))
        while not upstream.seen:
            await asyncio.sleep(0.01)
        talk.stop()
        assert talk.turns == []
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(stop())
    assert talk.turns == []


def test_what_cannot_be_asked_is_not_sent(upstream: UpstreamHost) -> None:
    refused = Picture(b"", "video", "", UserError("nano knows only synthetic clips"))
    for talk, question, sentence in [
        (Talk(), "What happens?", "there is no clip"),
        (Talk(_picture("video")), " \n", "the question is empty"),
        (Talk(_picture("video")), "What <image> is this?", "the mark of a picture"),
        (Talk(_picture("video")), "x" * 9000, "longer than"),
        (Talk(refused), "What happens?", "nano knows only synthetic clips"),
    ]:
        with pytest.raises(UserError, match=sentence):
            _ask(talk, upstream, question)
        assert talk.turns == []
    assert upstream.seen == []


def test_the_model_is_named_by_the_server_or_by_whoever_starts_the_app(upstream: UpstreamHost) -> None:
    assert asyncio.run(ServedModel(upstream.base_url).endpoint()).model == MODEL
    assert asyncio.run(ServedModel(upstream.base_url, "named").endpoint()).model == "named"
    with media_host() as host:
        page = ServedModel(f"http://127.0.0.1:{host.port}/page/v1")  # which lists no model
        with pytest.raises(UserError, match="what answers is no model server"):
            asyncio.run(page.endpoint())


@pytest.mark.parametrize("models", [[], None])
def test_a_server_that_lists_no_model_answers_once_it_is_named(
    upstream: UpstreamHost, models: list[str] | None
) -> None:
    upstream.models = models
    with pytest.raises(UserError, match="--chat-model"):
        asyncio.run(ServedModel(upstream.base_url).greeting())
    assert asyncio.run(ServedModel(upstream.base_url, "named").greeting()).startswith("named at http")


def test_no_proxy_is_asked_for_a_server_of_this_machine(
    upstream: UpstreamHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert "".join(Conversation(upstream.base_url, None).ask("What?")) == ANSWER
    assert _ask(Talk(_picture("video")), upstream, "What happens?") == ANSWER


def _ask(
    talk: Talk, upstream: UpstreamHost, question: str, *, system: str = "", patience_s: float = 20.0
) -> str:
    asked = Asked(max_tokens=64, system=system, patience_s=patience_s)
    return _gather(talk, _endpoint(upstream.base_url), question, asked)


def _gather(talk: Talk, endpoint: Endpoint, question: str, asked: Asked) -> str:
    async def gather() -> str:
        last = ""
        async for answer in talk.ask(question, endpoint, asked):
            assert answer.startswith(last)
            last = answer
        return last

    return asyncio.run(gather())


def _endpoint(url: str) -> Endpoint:
    return Endpoint(url, MODEL, EngineSpec(url=url, model=MODEL, revision="1"))


def _picture(kind: str) -> Picture:
    sink = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(sink, "PNG")
    return Picture(sink.getvalue(), "video" if kind == "video" else "image", "a clip")
