"""``share4video recaption`` against a real server: who is asked, and what is no answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

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


def test_a_text_that_fails_costs_no_other_its_answer(upstream: UpstreamHost) -> None:
    upstream.answer = lambda body: " " if "a dog" in json.dumps(body) else "a circle " * 20
    run = recaption(upstream, "captioner")
    assert run.exit_code == 2
    first, second = map(json.loads, run.stdout.splitlines())
    assert first == {"prompt": "a dog", "caption": "", "checks": ["empty"], "error": "the answer was empty"}
    assert (second["prompt"], second["caption"]) == ("a red circle", ("a circle " * 20).strip())
    assert "repetition" in second["checks"]
    assert "1 of 2 texts got no caption" in run.stderr


def test_a_refused_call_is_told_in_its_line(upstream: UpstreamHost) -> None:
    upstream.refuse_with = (400, {"error": "no"})
    run = recaption(upstream, "captioner")
    assert run.exit_code == 2
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["prompt"] for line in lines] == ["a dog", "a red circle"]
    assert all(line["caption"] == "" and "HTTP 400" in line["error"] for line in lines)
    assert "2 of 2 texts got no caption" in run.stderr


def test_a_refused_key_is_one_sentence(upstream: UpstreamHost) -> None:
    upstream.refuse_with = (401, {"error": "no"})
    run = recaption(upstream, "captioner")
    assert (run.exit_code, run.stdout) == (2, "")
    assert "the engine refused the key" in run.stderr


def test_many_texts_come_in_their_order(upstream: UpstreamHost, tmp_path: Path) -> None:
    upstream.answer = lambda body: "A brown dog."
    texts = [f"dog number {number}" for number in range(60)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    engine = f"engines.captioner={{url: {upstream.base_url}, model: m, max_in_flight: 3}}"
    given = ["recaption", "--file", str(tmp_path / "texts.txt")]
    run = CliRunner().invoke(app, [*given, "--set", engine, "--set", "engines.summarizer=null"])
    assert run.exit_code == 0
    assert [json.loads(line)["prompt"] for line in run.stdout.splitlines()] == texts


def test_the_other_way_round(upstream: UpstreamHost) -> None:
    upstream.answer = lambda body: f"short {body['messages'][1]['content'][0]['text'].split()[-1]}"
    engine = f"engines.captioner={{url: {upstream.base_url}, model: m, dialect: teacher}}"
    given = ["recaption", "--reverse", "A long caption of a dog", "and of a circle"]
    run = CliRunner().invoke(app, [*given, "--set", engine, "--set", "engines.summarizer=null"])
    assert [json.loads(line) for line in run.stdout.splitlines()] == [
        {"caption": "A long caption of a dog", "prompt": "short dog", "checks": []},
        {"caption": "and of a circle", "prompt": "short circle", "checks": []},
    ]
    assert {request["max_tokens"] for request in upstream.seen} == {160}


def test_the_released_captioner_has_no_way_back(upstream: UpstreamHost) -> None:
    run = CliRunner().invoke(app, ["recaption", "--reverse", "A dog."])
    assert run.exit_code == 2
    assert "the sharecaptioner prompts have no role prompt" in run.stderr
