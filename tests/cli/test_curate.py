"""``share4video curate`` as a person runs it: sources of several kinds, relative paths, what is printed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from share4video.cli.main import app
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import read_table
from share4video.store import LocalStore
from tests.engines import FakeEngine
from tests.media.clips import write_clip

SETTINGS = (
    "probe.min_duration_s=1",
    "probe.min_height=48",
    "engines.summarizer=null",
    "dedup.visual_threshold=1.0",
    "dedup.text_threshold=1.0",
)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_copies: Path) -> Path:
    """A working folder with a folder of clips, an archive and a list."""
    desk = tmp_path / "desk"
    for folder in ("films/deep", "listed", "elsewhere"):
        (desk / folder).mkdir(parents=True)
    write_clip(desk / "films" / "a.mp4", frames=30)
    write_clip(desk / "films" / "deep" / "short.mp4", frames=5)
    write_clip(desk / "listed" / "b.mp4", frames=34)
    write_clip(desk / "elsewhere" / "c.mp4", frames=38)
    with zipfile.ZipFile(desk / "pack.zip", "w") as archive:
        archive.write(desk / "films" / "a.mp4", "a.mp4")
        write_clip(tmp_path / "d.mp4", frames=42)
        archive.write(tmp_path / "d.mp4", "in/d.mp4")
    (desk / "list.csv").write_text(
        "uri,id,license\n"
        "listed/b.mp4,B,MIT\n"
        "listed/b.mp4,B again,MIT\n"
        f"{desk}/elsewhere/c.mp4,C,\n"
        "../../etc/passwd,P,\n"
    )
    (desk / "lists").mkdir()
    (desk / "list.csv").rename(desk / "lists" / "list.csv")
    (desk / "listed").rename(desk / "lists" / "listed")
    monkeypatch.chdir(desk)
    return desk


def curate(engine: FakeEngine, *arguments: str) -> tuple[int, str, str]:
    settings = (f"engines.captioner={engine.spec().model_dump_json()}", *SETTINGS)
    given = [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["curate", *arguments, "--store", "store", *given])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def clips_of(said: str) -> dict[str, str | None]:
    (line,) = (line for line in said.splitlines() if line.startswith("clips "))
    rows = read_table(LocalStore(Path("store")), StageRef.parse(line.split()[-1]), "clips").to_pylist()
    return {row["source_uri"]: row["licence"] for row in rows}


def test_a_folder_an_archive_and_a_list_together(desk: Path, fake_engine: FakeEngine) -> None:
    code, said, shown = curate(
        fake_engine, "films", "pack.zip", "lists/list.csv", "--set", f"allow=['{desk}/elsewhere/']"
    )
    assert code == 0, shown
    assert clips_of(said) == {
        "films/a.mp4": "unknown",
        f"list.csv/{desk}/elsewhere/c.mp4": "unknown",
        "list.csv/listed/b.mp4": "MIT",
        "pack.zip/in/d.mp4": "unknown",
    }
    (line,) = (line for line in shown.splitlines() if line.startswith("probe: "))
    assert line.startswith("probe: 8 in, 4 out, 2 exact duplicate, 1 not allowed, 1 too short")
    code, again, shown = curate(
        fake_engine, "lists/list.csv", "pack.zip", "films", "--set", f"allow=['{desk}/elsewhere/']"
    )
    assert (code, again) == (0, said)
    assert "unchanged" in next(line for line in shown.splitlines() if line.startswith("probe: "))


def test_a_pattern_and_a_limit(desk: Path, fake_engine: FakeEngine) -> None:
    code, said, shown = curate(fake_engine, "**/*.mp4", "--limit", "2")
    assert code == 0, shown
    assert set(clips_of(said)) == {"elsewhere/c.mp4", "films/a.mp4"}
    code, said, shown = curate(fake_engine, "**/*.mp4", "--shard", "3/2")
    assert code == 2
    assert "shard 3/2 is none: give 1/4 to 4/4 for four shards" in shown


def test_two_sources_of_one_name_are_one_sentence(desk: Path, fake_engine: FakeEngine) -> None:
    (desk / "other" / "films").mkdir(parents=True)
    code, said, shown = curate(fake_engine, "films", "other/films")
    assert (code, said) == (2, "")
    assert shown.splitlines()[-1].startswith("share4video: two sources are called 'films'")
