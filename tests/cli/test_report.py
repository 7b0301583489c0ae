"""``share4video report`` on what ``share4video caption`` published."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from share4video.cli.main import app
from tests.engines import FakeEngine
from tests.media.clips import write_clip
from tests.report.pages import Page

SETTINGS = (
    "probe.min_duration_s=1",
    "probe.min_height=48",
    "keyframes.mode=uniform",
    "dedup.visual_threshold=1.0",
    "dedup.text_threshold=1.0",
    "engines.summarizer=null",
)


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work_root: Path, local_copies: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").mkdir()
    for number in range(2):
        write_clip(tmp_path / "films" / f"{number}.mp4", frames=30 + 4 * number)
    write_clip(tmp_path / "films" / "short.mp4", frames=5)


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*arguments, "--store", "store"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def page(*arguments: str) -> tuple[str, int]:
    """Write a report; return its text and how many pictures it has."""
    code, told, _ = call("report", *arguments)
    assert (code, told.strip()) == (0, "report.html")
    read = Page(Path("report.html").read_text())
    return " ".join(" ".join(read.texts).split()), sum(one.tag == "img" for one in read.elements)


@pytest.mark.usefixtures("films")
def test_what_was_captioned_without_a_pipeline_has_a_report(fake_engine: FakeEngine) -> None:
    settings = (f"engines.captioner={fake_engine.spec().model_dump_json()}", *SETTINGS)
    code, told, _ = call("caption", "films", *(word for one in settings for word in ("--set", one)))
    assert code == 0
    captions, dataset = (line.split()[1] for line in told.splitlines())
    whole, pictures = page(dataset)
    assert "0.mp4" in whole and "1.mp4" in whole
    assert "short.mp4" in whole  # the reject of the first stage
    assert pictures > 0
    assert page(dataset, "--suspicious")[1] > 0
    assert "0.mp4" in page(captions)[0]
    assert page(captions, "--suspicious")[1] > 0


@pytest.mark.usefixtures("films")
def test_what_is_not_there_is_a_sentence() -> None:
    code, _, said = call("report")
    assert (code, "no finished run of a pipeline" in said) == (2, True)
    code, _, said = call("report", "dataset/0@1")
    assert (code, "dataset/0" in said) == (2, True)
    code, _, said = call("report", "elsewhere")
    assert (code, "cannot read what the run published" in said) == (2, True)
