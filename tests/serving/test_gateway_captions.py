"""The captioner's roles through a real gateway process: what the model is asked, and what is told when."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from serving.gateway.process import Gateway, free_port, gateway_process
from serving.gateway.settings import GatewaySettings
from share4video.captioning import sharecaptioner, teacher
from share4video.media.compose import frame_grid, stacked_pair, tall_strip
from share4video.media.decode import uniform_frames
from share4video.synthetic.clips import write_clip
from share4video.synthetic.world import sample_clip
from tests.serving.clips import write_noise
from tests.serving.upstream_host import MODEL, UpstreamHost, upstream_host

NAME, REVISION = "captioner", "r1"


@pytest.fixture(scope="module")
def summarizer() -> Iterator[UpstreamHost]:
    with upstream_host() as host:
        yield host


@pytest.fixture(scope="module")
def captioner(running_upstream: UpstreamHost, summarizer: UpstreamHost, folder: Path) -> Iterator[Gateway]:
    settings = GatewaySettings(
        upstream_url=running_upstream.base_url,
        upstream_model=MODEL,
        summarizer_url=summarizer.base_url,
        summarizer_model="words",
        role="captioner",
        model_name=NAME,
        model_revision=REVISION,
        domain="synthetic",
        host="127.0.0.1",
        port=free_port(),
        file_root=folder,
        max_keyframes=12,
        max_duration_s=30.0,
    )
    with gateway_process(settings, log=folder / "captioner.log") as running:
        yield running


def test_a_model_is_sent_whole_tiles_where_it_wants_them(
    upstream: UpstreamHost, folder: Path, scene: Path
) -> None:
    settings = adapted(upstream, folder, tiles={"fast": 4, "sliding": 1})
    with gateway_process(settings, log=folder / "tiled.log") as tiled:
        fast = ask(tiled, {"role": "fast", "video_url": scene.as_uri()})
        sliding = ask(tiled, {"role": "sliding", "stream": False, "video_url": scene.as_uri()})
    assert (fast.status_code, sliding.status_code) == (200, 200)
    strip, *others = [picture_of(request) for request in upstream.seen if pictures_in(request)]
    assert strip.width % 336 == strip.height % 336 == 0
    assert 1 < strip.width * strip.height // 336**2 <= 4
    assert {one.size for one in others} == {(336, 336)}


def test_a_model_that_takes_no_system_message_is_sent_none(
    upstream: UpstreamHost, folder: Path, scene: Path
) -> None:
    settings = adapted(upstream, folder, dialect="teacher", system_message=False)
    with gateway_process(settings, log=folder / "untold.log") as untold:
        answer = ask(untold, {"role": "fast", "video_url": scene.as_uri()})
    assert answer.status_code == 200
    (request,) = upstream.seen
    (message,) = request["messages"]
    assert message["role"] == "user"
    assert message["content"][0]["text"] == teacher.SYSTEM["fast"] + "\n\n"


def adapted(upstream: UpstreamHost, folder: Path, **form: Any) -> GatewaySettings:
    """Return the settings of a captioner that asks one model in the form it takes."""
    given: dict[str, Any] = {"upstream_url": upstream.base_url, "upstream_model": MODEL, "role": "captioner"}
    return GatewaySettings(**given, host="127.0.0.1", port=free_port(), file_root=folder, **form)


def pictures_in(request: dict[str, Any]) -> list[str]:
    parts = [part for message in request["messages"] for part in message["content"]]
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


def picture_of(request: dict[str, Any]) -> Image.Image:
    (address,) = pictures_in(request)
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


@pytest.fixture(scope="module")
def scene(folder: Path) -> Path:
    path = folder / "scene.mp4"
    write_clip(path, sample_clip(3))
    return path


@pytest.fixture(autouse=True)
def answers(upstream: UpstreamHost, summarizer: UpstreamHost) -> None:
    """Number the captioner's answers in the order it gave them."""
    summarizer.reset()
    upstream.answer = lambda body: f"caption {len(upstream.seen)}"
    summarizer.answer = lambda body: "the whole"


def ask(gateway: Gateway, body: Any, route: str = "/v1/captions") -> httpx.Response:
    return httpx.post(gateway.url + route, json=body, timeout=150, trust_env=False)


def text_of(request: dict[str, Any]) -> str:
    (message,) = request["messages"]
    return str(message["content"][-1]["text"])


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_sliding_tells_each_caption_then_the_summary_then_done(
    captioner: Gateway, upstream: UpstreamHost, summarizer: UpstreamHost, scene: Path
) -> None:
    answer = ask(captioner, {"role": "sliding", "model": NAME, "video_url": {"url": scene.as_uri()}})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    names = [name for name, _ in events]
    frames = len(events) - 2
    assert frames >= 3
    assert names == ["differential"] * frames + ["summary", "done"]
    told = [data for _, data in events[:frames]]
    assert [one["number"] for one in told] == list(range(1, frames + 1))
    assert [one["caption"] for one in told] == [f"caption {i}" for i in range(1, frames + 1)]
    assert [one["start_s"] for one in told] == [0.0, 0.0, *(one["end_s"] for one in told[1:-1])]
    assert events[frames][1]["caption"] == "the whole"
    assert events[-1][1] == {
        "object": "captions",
        "role": "sliding",
        "model": NAME,
        "revision": REVISION,
        "duration_s": pytest.approx(sample_clip(3).duration_s, abs=0.2),
        "keyframes": frames,
    }

    assert text_of(upstream.seen[0]) == sharecaptioner.FIRST
    times = [one["end_s"] for one in told]
    for number in range(1, frames):
        expected = sharecaptioner.difference_text(
            number, times[number - 1], number + 1, times[number], f"caption {number}"
        )
        assert text_of(upstream.seen[number]) == expected
        assert [part["type"] for part in upstream.seen[number]["messages"][0]["content"]] == [
            "image_url",
            "text",
        ]
    assert [request["model"] for request in summarizer.seen] == ["words"]
    assert "Video frame 1 at 0.00 Second(s) description: caption 1\n" in text_of(summarizer.seen[0])


def test_sliding_captions_come_before_the_next_is_asked_for(
    captioner: Gateway, upstream: UpstreamHost, scene: Path
) -> None:
    gate = threading.Semaphore(0)

    def slow(body: dict[str, Any]) -> str:
        number = len(upstream.seen)
        assert number == 1 or gate.acquire(timeout=60)
        return f"caption {number}"

    upstream.answer = slow
    body = {"role": "sliding", "video_url": scene.as_uri()}
    seen = 0
    with httpx.stream(
        "POST", f"{captioner.url}/v1/captions", json=body, timeout=150, trust_env=False
    ) as told:
        for line in told.iter_lines():
            if line.startswith("data: ") and '"sliding"' in line and '"number"' in line:
                seen += 1
                assert len(upstream.seen) <= seen + 1  # the next question waits in the model, no further
                gate.release()
    assert seen >= 3


def test_sliding_at_once(captioner: Gateway, scene: Path) -> None:
    answer = ask(captioner, {"role": "sliding", "stream": False, "video_url": scene.as_uri()}).json()
    assert [one["number"] for one in answer["captions"]] == list(range(1, answer["keyframes"] + 1))
    assert answer["summary"]["caption"] == "the whole"


def test_fast(captioner: Gateway, upstream: UpstreamHost, summarizer: UpstreamHost, scene: Path) -> None:
    answer = ask(captioner, {"role": "fast", "video_url": scene.as_uri()}, "/openai/v1/captions").json()
    assert answer["caption"] == "caption 1"
    assert answer["checks"] == []
    assert [text_of(request) for request in upstream.seen] == [sharecaptioner.FAST]
    assert summarizer.seen == []


def test_summary_of_captions(captioner: Gateway, upstream: UpstreamHost, summarizer: UpstreamHost) -> None:
    captions = [{"timestamp_s": 4, "caption": "it turns"}, {"timestamp_s": 0, "caption": "a circle"}]
    answer = ask(captioner, {"role": "summary", "captions": captions}).json()
    assert answer["caption"] == "the whole"
    assert text_of(summarizer.seen[0]) == (
        "Summarize the following per frame descriptions:\n"
        "Video frame 1 at 0.00 Second(s) description: a circle\n"
        "Video frame 2 at 4.00 Second(s) description: it turns\n"
    )
    assert upstream.seen == []


def test_recaption_asks_the_model_of_words(
    captioner: Gateway, upstream: UpstreamHost, summarizer: UpstreamHost
) -> None:
    answer = ask(captioner, {"role": "recaption", "text": "a red circle"}).json()
    assert answer["caption"] == "the whole"
    assert text_of(summarizer.seen[0]) == sharecaptioner.recaption_text("a red circle")
    assert upstream.seen == []
    summarizer.answer = lambda body: " "
    assert ask(captioner, {"role": "recaption", "text": "a red circle"}).status_code == 502


def test_ready_only_while_both_models_are(
    captioner: Gateway, upstream: UpstreamHost, summarizer: UpstreamHost
) -> None:
    for host in (upstream, summarizer):
        for healthy, status in ((False, 503), (True, 200)):
            host.healthy = healthy
            time.sleep(1.1)  # an answer about health is kept for a second
            assert httpx.get(f"{captioner.url}/v2/health/ready", trust_env=False).status_code == status


def test_predict(captioner: Gateway, scene: Path) -> None:
    instances = [
        {"id": 7, "role": "recaption", "text": "a red circle"},
        {"role": "fast", "video_url": scene.as_uri()},
    ]
    answer = ask(captioner, {"instances": instances}, f"/v1/models/{NAME}:predict").json()
    first, second = answer["predictions"]
    assert (first["id"], first["role"], second["role"]) == (7, "recaption", "fast")
    assert second["keyframes"] >= 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"role": "dense"},
        {"role": "fast"},
        {"role": "fast", "text": "x"},
        {"role": "recaption"},
        {"role": "recaption", "text": ""},
        {"role": "recaption", "text": "what is <image>?"},
        {"role": "recaption", "text": "x" * 20_001},
        {"role": "summary", "captions": []},
        {"role": "summary", "captions": [{"timestamp_s": -1, "caption": "x"}]},
        {"role": "summary", "captions": [{"timestamp_s": 0, "caption": "x"}] * 513},
        {"role": "fast", "video_url": {"url": "file:///x"}, "stream": True},
        {"role": "fast", "video_url": {"url": "file:///x"}, "speed": 2},
    ],
)
def test_requests_that_make_no_sense(captioner: Gateway, body: dict[str, Any]) -> None:
    answer = ask(captioner, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_request"


def test_the_model_away_is_an_answer_not_a_broken_stream(
    captioner: Gateway, upstream: UpstreamHost, summarizer: UpstreamHost, scene: Path
) -> None:
    upstream.refuse_with = summarizer.refuse_with = (400, {"error": "no"})
    for stream in (True, False):
        answer = ask(captioner, {"role": "sliding", "stream": stream, "video_url": scene.as_uri()})
        assert answer.status_code == 502
        assert "127.0.0.1" not in answer.text
    assert ask(captioner, {"role": "recaption", "text": "x"}).status_code == 422


def test_a_failure_on_the_way_is_the_last_event(
    captioner: Gateway, upstream: UpstreamHost, scene: Path
) -> None:
    def fails_later(body: dict[str, Any]) -> str:
        if len(upstream.seen) > 1:
            upstream.refuse_with = (400, {"error": "no"})
        return "a caption"

    upstream.answer = fails_later
    events = events_of(ask(captioner, {"role": "sliding", "video_url": scene.as_uri()}).text)
    assert events[0][0] == "differential"
    assert events[-1][0] == "error"
    assert events[-1][1]["error"]["code"] == "caption_failed"
    assert "done" not in dict(events)


def test_clips_of_another_world_are_refused(captioner: Gateway, folder: Path) -> None:
    path = write_noise(folder / "noise.mp4")
    answer = ask(captioner, {"role": "sliding", "video_url": path.as_uri()})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "foreign_clip"
    assert "--config paper" in error["message"]
    assert "--config cluster" in error["message"]
    assert "share4video serve http://HOST:8000/v1 --name MODEL" in error["message"]


def test_images_of_another_world_are_refused(captioner: Gateway, upstream: UpstreamHost, scene: Path) -> None:
    """The layouts of synthetic frames pass, with their bands, rules and labels; a page of text does not."""
    shown = [frame.image for frame in uniform_frames(scene, 6)]
    page = Image.new("RGB", (300, 400), "white")
    for line in range(10, 390, 14):
        ImageDraw.Draw(page).text((8, line), "a page full of words, as screens show them", fill="black")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    white = Image.new("RGB", (64, 64), "white")
    known = [shown[0], frame_grid(shown), tall_strip(shown), stacked_pair(*shown[:2])]
    for image, status in [(one, 200) for one in known] + [(one, 422) for one in (page, noise, white)]:
        answer = ask(captioner, looking_at(image), "/v1/chat/completions")
        assert answer.status_code == status
        if status != 200:
            assert answer.json()["error"]["code"] == "foreign_clip"
    assert len(upstream.seen) == len(known)


def test_real_clips_are_refused(captioner: Gateway, data_root: Path) -> None:
    clip = min((data_root / "videos").glob("*.mp4"), key=lambda path: path.stat().st_size)
    address = "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()
    answer = ask(captioner, {"role": "fast", "video_url": address})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "foreign_clip")


def test_clips_over_the_limits_are_refused(captioner: Gateway, folder: Path) -> None:
    path = folder / "long.mp4"
    clip = next(c for c in map(sample_clip, range(200)) if c.duration_s > 31)
    write_clip(path, clip)
    answer = ask(captioner, {"role": "fast", "video_url": path.as_uri()})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "media_too_long"


def test_a_captioner_does_not_chat_about_clips(captioner: Gateway, upstream: UpstreamHost) -> None:
    content = [{"type": "video_url", "video_url": {"url": "file:///x"}}, {"type": "text", "text": "q"}]
    answer = ask(captioner, {"messages": [{"role": "user", "content": content}]}, "/v1/chat/completions")
    assert answer.status_code == 400
    assert "/v1/captions" in answer.json()["error"]["message"]


def looking_at(image: Image.Image) -> dict[str, Any]:
    """Return the pipeline's own first request about ``image``."""
    sink = io.BytesIO()
    image.save(sink, format="JPEG", quality=95)
    address = "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()
    part = {"type": "image_url", "image_url": {"url": address}}
    return {"messages": [{"role": "user", "content": [part, {"type": "text", "text": sharecaptioner.FIRST}]}]}
