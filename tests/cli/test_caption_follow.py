"""``share4video caption FILE --follow``: lines while a file is read, in a memory that does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from share4video.cli.main import app
from tests.engines import FakeEngine
from tests.media.clips import write_clip
from tests.media.sources.material import write_archive

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three minutes, another picture every half second."""
    return write_clip(tmp_path_factory.mktemp("film") / "film.mp4", frames=360, fps=2, gop=4)


def engines(fake: FakeEngine) -> list[str]:
    engine = f"{{url: {fake.base_url}, model: fake, retries: 0}}"
    return ["--set", f"engines.captioner={engine}", "--set", "engines.summarizer=null"]


def follow(fake: FakeEngine, *words: str) -> Result:
    return CliRunner().invoke(app, ["caption", *words, "--follow", *engines(fake)])


def test_a_long_video_is_told_by_key_frames_parts_and_as_a_whole(fake_engine: FakeEngine, film: Path) -> None:
    said = follow(fake_engine, str(film), "--set", "caption.cut_threshold=-1")
    assert said.exit_code == 0, said.output
    lines = list(map(json.loads, said.stdout.splitlines()))
    frames = [line for line in lines if line["role"] == "sliding"]
    assert [line["number"] for line in frames] == list(range(1, len(frames) + 1))
    assert (frames[0]["start_s"], frames[-1]["end_s"]) == (0.0, 178.0)
    full = [line for line in frames if line["start_s"] == line["end_s"]]
    parts = [line for line in lines if line["role"] == "part_summary"]
    assert len(full) > 10
    assert [part["start_s"] for part in parts] == [line["start_s"] for line in full][: len(parts)]
    assert [line["role"] for line in lines].count("summary") == 1
    assert (lines[-1]["role"], lines[-1]["end_s"]) == ("summary", 178.0)
    assert lines[0].keys() >= {"caption", "checks", "fallback"}


def test_lines_come_before_the_file_is_read_to_its_end(
    fake_engine: FakeEngine, film: Path, tmp_path: Path
) -> None:
    """The file is damaged in its last quarter: whoever had to read that far first would tell nothing."""
    data = bytearray(film.read_bytes())
    begin = data.index(b"mdat") + 4
    place = begin + (data.index(b"moov", begin) - begin) * 3 // 4
    data[place : place + 400] = bytes(400)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    said = follow(fake_engine, str(damaged))
    assert said.exit_code == 2
    assert "the video is damaged after" in said.stderr
    told = [json.loads(line) for line in said.stdout.splitlines()]
    assert len(told) > 20
    assert max(line["end_s"] for line in told) > 60


MEASURED = """
import resource, sys
from pathlib import Path
from share4video.caption_file import follow_clip
from share4video.config import EngineSpec
told = []
spec = EngineSpec(url=sys.argv[2], model="fake")
follow_clip(Path(sys.argv[1]), spec, on_caption=lambda caption: told.append(caption.role))
print(len(told), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def test_memory_does_not_grow_with_the_length(fake_engine: FakeEngine, tmp_path: Path) -> None:
    """The pictures of the long one take 70 MiB, those of the short one 14."""

    def measured(seconds: int) -> tuple[int, int]:
        path = write_clip(tmp_path / f"{seconds}.mp4", frames=seconds, fps=1, width=640, height=480)
        words = [sys.executable, "-c", MEASURED, str(path), fake_engine.base_url]
        said = subprocess.run(words, capture_output=True, text=True, check=True, cwd=REPOSITORY)
        told, peak_mib = map(int, said.stdout.split())
        return told, peak_mib

    (short, small), (long, large) = measured(32), measured(160)
    assert long > 4 * short
    assert large - small < 24


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{folder}"], "the source holds 2 videos"),
        (["{folder}/nothing.mp4"], "nothing.mp4"),
        (["{folder}/words.mp4"], "not a video"),
        (["{folder}/film.mp4", "--set", "keyframes.mode=reference"], "need the whole clip"),
    ],
)
def test_mistakes_are_said(fake_engine: FakeEngine, tmp_path: Path, words: list[str], sentence: str) -> None:
    write_clip(tmp_path / "film.mp4", frames=4)
    (tmp_path / "words.mp4").write_text("not a video")
    said = follow(fake_engine, *(word.format(folder=tmp_path) for word in words))
    assert said.exit_code == 2
    assert sentence in said.stderr
    assert fake_engine.calls() == []


def test_the_small_models_are_not_followed_elsewhere(film: Path) -> None:
    said = CliRunner().invoke(app, ["caption", str(film), "--follow"])
    assert said.exit_code == 2
    assert "knows only the synthetic clips" in said.stderr


def test_a_video_in_an_archive_is_copied_first(
    fake_engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARE4VIDEO_CACHE", str(tmp_path / "cache"))
    film = write_clip(tmp_path / "film.mp4", frames=60)
    write_archive(tmp_path / "films.zip", {"film.mp4": film.read_bytes()})
    film.unlink()
    said = follow(fake_engine, str(tmp_path / "films.zip"))
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout.splitlines()[-1])["role"] == "summary"
