"""The front door: mistakes are sentences, bugs keep their traceback, verbs say what they did."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
import yaml
from typer.testing import CliRunner

from share4video.cli.main import FrontDoor, app
from share4video.config import DatasetConfig
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.errors import UserError
from share4video.store import LocalStore
from tests.engines import FakeEngine

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def mistake(*arguments: str) -> str:
    """Run what must be refused; return the one sentence."""
    code, said, complaint = run(*arguments)
    assert code == 2
    assert said == ""
    (line,) = complaint.splitlines()
    return line.removeprefix("share4video: ")


def test_version_and_help() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    try:
        expected = version("share4video")
        assert expected == project["version"]
    except PackageNotFoundError:
        expected = "0 (from a source tree)"
    assert run("--version") == (0, f"share4video {expected}\n", "")
    code, shown, complaint = run("--help")
    assert (code, complaint) == (0, "")
    for verb in ("curate", "caption", "train", "evaluate", "promote", "serve", "chat", "demo", "pipeline"):
        assert verb in shown


def test_an_unknown_setting_names_the_key(tmp_path: Path) -> None:
    said = mistake(
        "curate", str(tmp_path), "--store", str(tmp_path / "s"), "--set", "probe.min_durationn_s=1"
    )
    assert said.startswith("unknown configuration key probe.min_durationn_s")


def test_a_folder_without_videos_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    url = (
        "--set",
        "engines.captioner={url: http://127.0.0.1:9/v1, model: m}",
        "--set",
        "engines.summarizer=null",
    )
    code, said, complaint = run("curate", str(tmp_path / "empty"), "--store", str(tmp_path / "s"), *url)
    assert code == 2
    assert said == ""
    assert complaint.splitlines()[-1].startswith("share4video: ")
    assert "Traceback" not in complaint
    assert not list((tmp_path / "s").rglob("manifest.json"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pipeline", "run", "nothing", "--local"), "no such pipeline (nothing)"),
        (("pipeline", "run", "curate"), "nothing says where to run (curate)"),
        (("pipeline", "run", "curate", "--local"), "the pipeline needs source (curate)"),
        (
            ("pipeline", "run", "caption", "--local", "--source", "x"),
            "the pipeline takes no source (caption)",
        ),
        (("pipeline", "run", "caption", "--local", "--input", "clips"), "not an input (clips)"),
        (("pipeline", "compile"), "name one pipeline or say --all"),
        (
            ("pipeline", "submit", "curate", "--host", "h", "--image", "i"),
            "a cluster cannot reach this store",
        ),
        (
            (
                *("pipeline", "submit", "curate", "--host", "h", "--image", "i"),
                *("--store", "s3://b/p", "--source", "videos"),
            ),
            "a cluster does not see this folder (videos)",
        ),
        (("dataset", "list", "--stage", "../x"), "there is no such stage (../x)"),
        (("promote", "mine", "--questions", "q", "--question-clips", "c"), "not a stage output (mine)"),
        (("train", "x", "--dataset", "y"), "not a stage output (y)"),
        (("curate", "x", "--config", "nowhere.yaml"), "cannot read the configuration"),
        (("dataset", "list", "--store", "gs://b"), "unknown store scheme (gs://b)"),
        (("recaption",), "there is no prompt"),
    ],
)
def test_mistakes_are_sentences(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHARE4VIDEO_STORE", raising=False)
    assert mistake(*arguments).startswith(said)


def test_a_mistake_ends_a_real_process_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from share4video.cli.main import app; app()", "pipeline", "run", "x"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_a_bug_keeps_its_traceback() -> None:
    broken = typer.Typer(cls=FrontDoor, pretty_exceptions_enable=False)
    broken.callback()(lambda: None)

    @broken.command()
    def verb(kind: str) -> None:
        raise KeyboardInterrupt if kind == "stop" else ZeroDivisionError("bug")

    assert isinstance(CliRunner().invoke(broken, ["verb", "bug"]).exception, ZeroDivisionError)
    assert CliRunner().invoke(broken, ["verb", "stop"]).exit_code == 130


def test_presets_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from share4video.cli.options import read_settings

    assert read_settings("laptop").engines.captioner.model_path == "builtin:nano-captioner"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "laptop").write_text(
        "probe: {licence: mine}"
    )  # a file of that name is meant, where there is one
    assert read_settings("laptop").probe.licence == "mine"
    with pytest.raises(UserError, match="unheard_of"):
        read_settings("unheard_of")


def test_compile_writes_each_pipeline_for_an_image(tmp_path: Path) -> None:
    code, said, _ = run(
        "pipeline", "compile", "curate", "--image", "example/image@sha256:1", "-o", str(tmp_path)
    )
    assert code == 0
    assert said.split() == [str(tmp_path / "curate.yaml")]
    specification = next(yaml.safe_load_all((tmp_path / "curate.yaml").read_text()))
    assert specification["pipelineInfo"]["name"] == "curate"
    assert "example/image@sha256:1" in (tmp_path / "curate.yaml").read_text()


@pytest.fixture
def published(tmp_path: Path) -> tuple[str, StageRef]:
    store = LocalStore(tmp_path / "store")
    output = ShardSet(store, "dataset", "1", inputs=["x"], config=DatasetConfig())
    output.attach("README.md", b"# clips\n")
    row = {
        "row_id": "r",
        "source_uri": "a.mp4",
        "source_id": None,
        "clip_id": None,
        "stage": "probe",
        "reason": "dull",
        "sentence": "It is dull.",
    }
    rejects = table_from_rows("rejects", [{**row, "measured": None, "bound": None}])
    output.commit(0, {"rejects": rejects}, {"rows_in": 1, "reject:dull": 1})
    return str(store.root), output.publish(1).ref


def test_datasets_are_listed_shown_and_exported(published: tuple[str, StageRef], tmp_path: Path) -> None:
    store, ref = published
    assert run("dataset", "list", "--store", store)[1] == f"{ref}  0 rows\n"
    shown = run("dataset", "show", str(ref), "--store", store)[1]
    assert "table rejects          1 rows" in shown
    assert "README.md" in shown
    code, said, _ = run("dataset", "export", str(ref), "--to", str(tmp_path / "out"), "--store", store)
    assert code == 0
    assert said.split() == [str(tmp_path / "out" / name) for name in ("rejects.parquet", "README.md")]
    assert pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()[0]["reason"] == "dull"
    assert mistake("dataset", "list", "--stage", "train", "--store", store).startswith("nothing is published")


def test_a_released_file_is_imported_and_exported(tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "store"))
    file = tmp_path / "captions.json"
    file.write_text('[{"video_path": "pexels/a.mp4", "caption": "A sea."}, 3]')
    code, said, _ = run("dataset", "import", str(file), "--licence", "Pexels", *store)
    assert code == 0
    counts, ref = said.splitlines()
    assert counts == "2 in, 1 out, 1 wrong shape"
    out = ("--to", str(tmp_path / "out"), *store)
    code, said, _ = run("dataset", "export", ref, "--format", "open-sora-plan", *out)
    assert code == 0
    assert said.splitlines() == [str(tmp_path / "out" / "videos.json"), "1 in, 1 out"]
    assert mistake("dataset", "export", ref, "--format", "csv", *out).startswith(
        "there is no such format (csv): name one of tables, "
    )
    assert mistake("dataset", "export", ref, "--format", "llava-grid", *out).startswith(
        "format llava-grid needs the videos"
    )


def test_tables_that_cannot_be_written_are_a_sentence(
    published: tuple[str, StageRef], tmp_path: Path
) -> None:
    store, ref = published
    to = tmp_path / "out"
    (to / "rejects.parquet").mkdir(parents=True)
    said = mistake("dataset", "export", str(ref), "--to", str(to), "--store", store)
    assert said.startswith(f"cannot finish the export: Is a directory ({to})")


@pytest.mark.parametrize(
    ("format_", "options", "said"),
    [
        ("tables", ["--source", "films"], "format tables has no use for --source"),
        ("tables", ["--keyframes", "keyframes/0@0"], "format tables has no use for --keyframes"),
        ("llava", ["--source", "films"], "format llava has no use for --source"),
        ("webdataset", ["--balanced"], "format webdataset has no use for --balanced"),
        ("tables", ["--seed", "0"], "format tables has no use for --seed"),
        ("sharegpt4video", ["--source", "films"], "format sharegpt4video has no use for --source"),
        ("huggingface", ["--keyframes", "keyframes/0@0"], "format huggingface has no use for --keyframes"),
        ("open-sora", ["--shard-mib", "1"], "format open-sora has no use for --shard-mib"),
        ("webdataset", ["--commercial-licence", "CC-BY-4.0"], "it says what --commercial-only lets pass"),
        ("captioner", ["--source", "films", "--seed", "1"], "--seed chooses what --balanced takes"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    published: tuple[str, StageRef], tmp_path: Path, format_: str, options: list[str], said: str
) -> None:
    store, ref = published
    to = ("--to", str(tmp_path / "out"), "--store", store)
    assert mistake("dataset", "export", str(ref), "--format", format_, *options, *to).startswith(said)
    assert not (tmp_path / "out").exists()


def test_a_damaged_output_does_not_hide_the_others(published: tuple[str, StageRef]) -> None:
    store, ref = published
    broken = Path(store) / "dataset" / "0000" / "manifest.json"
    broken.parent.mkdir()
    broken.write_text("{")
    lines = run("dataset", "list", "--store", store)[1].splitlines()
    assert lines == ["dataset/0000  damaged: delete it and run the stage again", f"{ref}  0 rows"]


def test_a_file_is_no_folder_to_write_to(published: tuple[str, StageRef], tmp_path: Path) -> None:
    store, ref = published
    file = tmp_path / "file"
    file.touch()
    said = f"cannot make the folder: File exists ({file})"
    assert mistake("dataset", "export", str(ref), "--to", str(file), "--store", store).startswith(said)
    assert mistake("pipeline", "compile", "curate", "--out", str(file)).startswith(said)
    local = ("pipeline", "run", "curate", "--local", "--source", str(tmp_path), "--runs", str(file))
    assert mistake(*local, "--store", store).startswith(said)


def test_recaption_keeps_the_order_of_the_prompts(fake_engine: FakeEngine, tmp_path: Path) -> None:
    fake_engine.settings(jitter_s=0.05)
    (tmp_path / "prompts.txt").write_text("two\n\nthree\n")
    spec = fake_engine.spec().model_dump_json()
    settings = ("--set", f"engines.captioner={spec}", "--set", "engines.summarizer=null")
    code, said, _ = run("recaption", "one", "--file", str(tmp_path / "prompts.txt"), *settings)
    assert code == 0
    answers = [json.loads(line) for line in said.splitlines()]
    assert [answer["prompt"] for answer in answers] == ["one", "two", "three"]
    assert len({answer["caption"] for answer in answers}) == 3
    prompts = {call["prompt"] for call in fake_engine.calls()}
    assert "Translate this brief generation prompt into a detailed caption: two" in prompts


def test_clips_are_added_to_an_output_of_dedup_only(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    said = mistake("curate", str(tmp_path), "--store", store, "--add-to", "probe/k@h")
    assert said.startswith("clips are added to an output of dedup or dataset (probe/k@h)")
