"""``share4video recaption`` against a real server: who is asked, and what is no answer."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import Result
from typer.testing import CliRunner

from share4video.cli.main import app
from tests.serving.upstream_host import UpstreamHost, upstream_host


@pytest.fixture
def upstream() -> Iterator[UpstreamHost]:
    with upstream_host() as host:
        yield host


def recaption(upstream: UpstreamHost, *engines: str) -> Result:
    named = (f"engines.{name}={{url: {upstream.base_url}, model: {name}}}" for name in engines)
    settings = [part for one in named for part in ("--set", one)]
    if "summarizer" not in engines:
        settings += ["--set", "engines.summarizer=null"]
    return CliRunner().invoke(app, ["recaption", "a dog", "a red circle", *settings])


@pytest.mark.parametrize(
    ("engines", "asked"), [(("captioner", "summarizer"), "summarizer"), (("captioner",), "captioner")]
)
def test_the_model_that_works_on_text_is_asked(
    upstream: UpstreamHost, engines: tuple[str, ...], asked: str
) -> None:
    upstream.answer = lambda body: "A brown dog."
    run = recaption(upstream, *engines)
    assert run.exit_code == 0
    assert {request["model"] for request in upstream.seen} == {asked}
    told = [json.loads(line) for line in run.stdout.splitlines()]
    assert [one["prompt"] for one in told] == ["a dog", "a red circle"]
    assert {one["caption"] for one in told} == {"A brown dog."}


def test_an_empty_caption_is_an_error(upstream: UpstreamHost) -> None:
    upstream.answer = lambda body: " "
    run = recaption(upstream, "captioner")
    assert run.exit_code == 2
    assert "empty caption (a dog)" in run.stderr
