"""What is wrong with the engines is said before a verb does any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from share4video.cli.main import app
from tests.media.clips import write_clip

SUBMIT = ("--host", "http://127.0.0.1:1", "--image", "i", "--store", "s3://b/p")
VERBS = [
    ("caption", "films", "--store", "store"),
    ("train", "films", "--store", "store"),
    ("plan", "films", "--store", "store"),
    ("pipeline", "run", "flywheel", "--local", "--source", "films", "--store", "store"),
    ("pipeline", "submit", "flywheel", *SUBMIT),
]


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").mkdir()
    write_clip(tmp_path / "films" / "a.mp4", frames=30)
    return tmp_path


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: " ".join(verb[:2]))
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("caption.structured=true",), "the sharecaptioner prompts have no role structured"),
        (("caption.short_prompts=true",), "the sharecaptioner prompts have no role prompt"),
        (("engines.captioner={url: http://127.0.0.1:1/v1}",), "the engine's model is not named"),
        (("caption.checks.judge={url: http://127.0.0.1:1/v1}",), "the engine's model is not named"),
    ],
)
def test_an_engine_that_cannot_be_asked_is_refused_before_anything_is_done(
    films: Path, verb: tuple[str, ...], settings: tuple[str, ...], said: str
) -> None:
    questions = ("--questions", "q", "--question-clips", "c") if "run" in verb else ()
    given = [word for one in settings for word in ("--set", one)]
    result = CliRunner().invoke(app, [*verb, *questions, *given])
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (films / "runs").exists()
    assert not any(path.is_file() for path in films.glob("store/**/*"))
