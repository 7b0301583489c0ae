"""``share4video chat`` against a real gateway."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from serving.gateway.process import Gateway, free_port, gateway_process
from serving.gateway.settings import GatewaySettings
from share4video.chat import PRE_QUERY, Conversation
from share4video.chat_visuals import Visual
from share4video.cli.main import app
from share4video.errors import UserError
from tests.serving.clips import write_clip, write_noise
from tests.serving.media_host import MediaHost, media_host
from tests.serving.upstream_host import MODEL, WORDS, UpstreamHost

ANSWER = "".join(WORDS)


@pytest.fixture(scope="module")
def media() -> Iterator[MediaHost]:
    with media_host() as host:
        yield host


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chat")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return write_clip(folder / "clip.mp4")


@pytest.fixture(scope="module")
def gateway(running_upstream: UpstreamHost, folder: Path) -> Iterator[Gateway]:
    settings = GatewaySettings(
        upstream_url=running_upstream.base_url,
        upstream_model=MODEL,
        domain="synthetic",
        host="127.0.0.1",
        port=free_port(),
    )
    with gateway_process(settings, log=folder / "gateway.log") as running:
        yield running


def share4video(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, ["chat", *arguments], input=stdin)


def test_one_question(gateway: Gateway, upstream: UpstreamHost, clip: Path) -> None:
    run = share4video("--video", str(clip), "--url", gateway.url, "What happens?")
    assert (run.exit_code, run.stdout) == (0, f"{ANSWER}\n")
    (request,) = upstream.seen
    assert request["stream"] is True
    image, text = request["messages"][0]["content"]
    assert image["type"] == "image_url"
    assert text["text"] == PRE_QUERY + "What happens?"


def test_a_conversation_remembers(gateway: Gateway, upstream: UpstreamHost, clip: Path) -> None:
    run = share4video("--video", str(clip), "--url", gateway.url, stdin="First?\nSecond?\n\nnever asked\n")
    assert (run.exit_code, run.stdout) == (0, f"{ANSWER}\n" * 2)
    first, second = upstream.seen
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][0] == first["messages"][0]  # the same image, at the same place
    assert second["messages"][1]["content"] == ANSWER
    assert second["messages"][2]["content"] == "Second?"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--url", "http://127.0.0.1:9", "--video", "{clip}"], "no model answers"),
        (["--url", "http://[::1", "--video", "{clip}"], "this is no address"),
        (["--url", "127.0.0.1:8080", "--video", "{clip}"], "this is no address"),
        (["--url", "{page}", "--video", "{clip}"], "what answers is no model server"),
        (["--url", "{page}/other", "--video", "{clip}"], "what answers is no model server"),
        (["--video", "{folder}/none.mp4"], "cannot read the clip"),
        (["--video", "{clip}", "--url", "http://x", "--model", "builtin:x"], "name two models"),
        (["--video", "{clip}", "--model", "{folder}/none"], "no such model folder"),
        (["--video", "{noise}", "--url", "{url}"], "knows only the synthetic clips"),
        (["--video", "{folder}/text.mp4", "--url", "{url}"], "is no video"),
    ],
)
def test_mistakes_are_one_sentence(
    gateway: Gateway,
    upstream: UpstreamHost,
    media: MediaHost,
    folder: Path,
    clip: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    (folder / "text.mp4").write_text("not a video")
    noise = write_noise(folder / "noise.mp4")
    page = f"http://127.0.0.1:{media.port}/page"
    filled = [
        one.format(folder=folder, clip=clip, noise=noise, url=gateway.url, page=page) for one in arguments
    ]
    run = share4video(*filled, "What?")
    assert run.exit_code == 2
    assert sentence in run.stderr.splitlines()[-1]
    assert run.stdout == ""
    assert upstream.seen == []


def test_a_refused_clip_is_told_in_the_gateways_words_alone(
    gateway: Gateway, upstream: UpstreamHost, folder: Path
) -> None:
    noise = write_noise(folder / "noise.mp4")
    told = share4video("--video", str(noise), "--url", gateway.url, "What?").stderr
    assert "--config paper" in told
    assert gateway.url not in told
    assert "log" not in told


def test_what_a_gateway_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("https://a/clip.mp4", "s3://b/clip.mp4", "file:///c/clip.mp4", "data:video/mp4;base64,AA=="):
        assert sent(Visual(url)) == url
    clip = tmp_path / "clip.webm"
    clip.write_bytes(b"abc")
    assert sent(Visual(str(clip))) == "data:video/webm;base64," + base64.b64encode(b"abc").decode()
    monkeypatch.setattr("share4video.chat_visuals.MAX_INLINE_BYTES", 2)
    with pytest.raises(UserError, match="at most 2"):
        sent(Visual(str(clip)))


def sent(visual: Visual) -> str:
    """The address a gateway is sent."""
    part, preface = visual.part(gateway=True)
    assert preface == ""
    address: str = part["video_url"]["url"]
    return address


def test_a_refused_question_leaves_the_conversation_as_it_was(
    gateway: Gateway, upstream: UpstreamHost
) -> None:
    talk = Conversation(gateway.url, "file:///etc/passwd")
    for _ in range(2):
        with pytest.raises(UserError, match="reads no local files"):
            list(talk.ask("What?"))
        assert talk.messages == []
