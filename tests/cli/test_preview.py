"""``share4video preview`` on real files: which clips, what was sent, and a page that says it all."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from share4video.cli.main import app
from tests.media.clips import write_clip
from tests.report.pages import Page
from tests.serving.upstream_host import UpstreamHost, upstream_host


@pytest.fixture
def upstream() -> Iterator[UpstreamHost]:
    with upstream_host() as host:
        yield host


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_copies: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(4):
        write_clip(folder / f"{number}.mp4", frames=33, fps=8, width=96, height=64)
    (folder / "5.mp4").write_text("not a video")
    return folder


def preview(upstream: UpstreamHost, films: Path, *options: str, **engine: Any) -> Result:
    spec = {"url": upstream.base_url, "model": "m", "revision": "7", "retries": 0, **engine}
    settings = (
        f"engines.captioner={json.dumps(spec)}",
        "engines.summarizer=null",
        "probe.min_duration_s=1",
        "probe.min_height=48",
        "keyframes.threshold=1.0",
    )
    given = [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["preview", str(films), *given, *options])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_every_prompt_and_answer_is_on_the_page(upstream: UpstreamHost, films: Path) -> None:
    upstream.answer = lambda body: f"Answer {len(upstream.seen)} <script>alert(1)</script> of a film."
    run = preview(upstream, films, "--clips", "2", "--out", "pages/look.html", dialect="teacher")
    assert (run.exit_code, run.stdout.strip()) == (0, "pages/look.html")
    page = Page(Path("pages/look.html").read_text())
    shown = "\n".join(page.texts)
    assert len(upstream.seen) == 2 * (3 + 1)  # key frames at 0, 2 and 4 s, and a summary
    for number, body in enumerate(upstream.seen, 1):
        assert f"Answer {number} <script>alert(1)</script> of a film." in shown
        for message in body["messages"]:
            content = message["content"]
            for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
                if part["type"] == "text":
                    assert " ".join(part["text"].split()) in " ".join(shown.split())
    assert "m@7" in shown and "teacher-2" in shown
    assert "7 tokens in, 4 out" in " ".join(shown.split())
    assert "0.mp4" in shown and "3.mp4" in shown and "1.mp4" not in shown
    assert {path.name for path in Path().iterdir() if path.is_dir()} == {"films", "pages"}  # no store


def test_what_was_composed_is_shown_as_it_was_sent(upstream: UpstreamHost, films: Path) -> None:
    preview(upstream, films, "--clips", "1")
    page = Page(Path("preview.html").read_text())
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(one.attributes["src"].partition(",")[2]))).size
        for one in page.elements
        if one.tag == "img"
    ]
    assert sizes == [(96, 64)] * 3 + [(96, 64)] + [(96, 64 + 50 + 64)] * 2
    assert all(one.attributes["src"].startswith("data:") for one in page.elements if one.tag == "img")


def test_the_choice_is_the_same_every_time_and_files_that_are_no_clips_are_named(
    upstream: UpstreamHost, films: Path
) -> None:
    upstream.answer = lambda body: "A film."

    def files(clips: int) -> tuple[list[str], list[str]]:
        assert preview(upstream, films, "--clips", str(clips)).exit_code == 0
        texts = Page(Path("preview.html").read_text()).texts
        every = [text for text in texts if text.endswith(".mp4")]
        return [name for name in every if name != "5.mp4"], [name for name in every if name == "5.mp4"]

    assert files(2) == files(2)
    assert files(1) == (["2.mp4"], [])
    assert files(5) == (["0.mp4", "1.mp4", "2.mp4", "3.mp4"], ["5.mp4"])


def test_failed_checks_and_failed_calls_are_shown(upstream: UpstreamHost, films: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        if len(upstream.seen) in (2, 3):
            return "a dog " * 20
        if len(upstream.seen) == 4:
            upstream.refuse_with = (400, {"error": "no"})
        return "A film."

    upstream.answer = answer
    run = preview(upstream, films, "--clips", "1", "--set", "caption.max_fallback_share=1")
    shown = " ".join(" ".join(Page(Path("preview.html").read_text()).texts).split())
    assert run.exit_code == 0
    assert "difference-1-0" in shown and "difference-1-1" in shown and "anchor-1-0" in shown
    assert shown.count("repetition") == 2
    assert "temperature 0.7 and seed" in shown
    assert "HTTP 400" in shown


def test_an_engine_that_does_not_answer_is_said(upstream: UpstreamHost, films: Path) -> None:
    upstream.refuse_with = (503, {"error": "down"})
    run = preview(upstream, films, "--clips", "4")
    assert run.exit_code == 2
    assert "4 of 4 clips looked at" in run.stderr and "captioned" not in run.stderr
    assert "4 of 4 clips passed over" in run.stderr
    assert "no clip got a caption: " in run.stderr and "HTTP 503" in run.stderr


def test_clips_that_a_run_would_pass_over_are_counted(upstream: UpstreamHost, films: Path) -> None:
    upstream.answer = lambda body: " "
    run = preview(upstream, films, "--clips", "2")
    assert run.exit_code == 0  # the engine answers, and the page says what
    assert "2 of 2 clips passed over" in run.stderr


def test_derived_captions_are_previewed_with_their_checks(upstream: UpstreamHost, films: Path) -> None:
    upstream.answer = lambda body: "Something that is no JSON."
    options = ("--set", "caption.structured=true", "--set", "caption.short_prompts=true")
    assert preview(upstream, films, "--clips", "1", *options, dialect="teacher").exit_code == 0
    shown = " ".join(" ".join(Page(Path("preview.html").read_text()).texts).split())
    assert "prompt-0" in shown and "structured-0" in shown and "structured-1" in shown
    assert shown.count("malformed") == 3  # of each call, and of what would be published


def test_mistakes_are_sentences(upstream: UpstreamHost, films: Path, tmp_path: Path) -> None:
    run = preview(upstream, films, "--set", "probe.min_duration_s=30")
    assert run.exit_code == 2
    assert "none of the 5 files that were looked at is one to caption" in run.stderr
    upstream.refuse_with = (401, {"error": "no"})
    run = preview(upstream, films)
    assert run.exit_code == 2
    assert "the engine refused the key" in run.stderr
    run = CliRunner().invoke(
        app, ["preview", str(films), "--set", "probe.min_duration_s=1", "--set", "probe.min_height=48"]
    )
    assert run.exit_code == 2
    assert "knows only the synthetic clips" in run.stderr and "--engine qwen3-vl-8b" in run.stderr
    assert not Path("preview.html").exists()


def test_scenes_begin_where_those_of_a_run_do(upstream: UpstreamHost, films: Path) -> None:
    upstream.answer = lambda body: "A film."
    for bound, key in ((-1, "difference-1-0"), (1, "anchor-1-0")):
        run = preview(upstream, films, "--clips", "1", "--set", f"caption.cut_threshold={bound}")
        assert run.exit_code == 0
        shown = " ".join(Page(Path("preview.html").read_text()).texts)
        assert [key in shown for key in ("difference-1-0", "anchor-1-0")] == [
            key == "difference-1-0",
            key == "anchor-1-0",
        ]


def test_answers_are_held_against_the_checks_of_the_settings(upstream: UpstreamHost, films: Path) -> None:
    upstream.answer = lambda body: "In frame 9 something happens at 90 s."
    options = ("--clips", "1", "--set", "caption.max_fallback_share=1")
    assert preview(upstream, films, *options).exit_code == 0
    shown = " ".join(" ".join(Page(Path("preview.html").read_text()).texts).split())
    asked = len(upstream.seen)
    assert shown.count("time out of range") >= asked == 12
    off = ("--set", "caption.checks.off=[frame_number,time_out_of_range]")
    assert preview(upstream, films, *options, *off).exit_code == 0
    shown = " ".join(" ".join(Page(Path("preview.html").read_text()).texts).split())
    assert len(upstream.seen) - asked == 4
    assert "time out of range" not in shown


def test_summaries_of_parts_are_shown(upstream: UpstreamHost, films: Path) -> None:
    words = " ".join(f"Thing {n} of the film is {n * n} steps away." for n in range(25))
    upstream.answer = lambda body: f"Answer {len(upstream.seen)}. {words}"
    options = ("keyframes.interval_s=0.25", "caption.summary_budget_tokens=2048")
    given = [word for option in options for word in ("--set", option)]
    assert preview(upstream, films, "--clips", "1", *given).exit_code == 0
    shown = " ".join(Page(Path("preview.html").read_text()).texts)
    assert "part_summary 0.00 to " in shown
