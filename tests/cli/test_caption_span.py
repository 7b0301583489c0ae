"""``share4video caption CLIP --span``: captions of spans from the store alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import Result
from typer.testing import CliRunner

from share4video.captioning.stored import find_clip
from share4video.cli.main import app
from share4video.config import CaptionConfig, DatasetConfig
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.shards import ShardSet, read_table
from share4video.stages.caption import run_stage as run_caption
from share4video.stages.dataset import DatasetInputs, run_stage
from share4video.store import LocalStore
from tests.engines import FakeEngine
from tests.stages.captioned import Captioned, publish_captioned
from tests.stages.test_caption import inputs_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def captioned(root: Path, tmp_path: Path) -> Captioned:
    return publish_captioned(LocalStore(root), tmp_path, ["red", "green", "blue"])


@pytest.fixture
def dataset(root: Path, captioned: Captioned) -> StageRef:
    return publish_dataset(root, captioned, "Clips")


def publish_dataset(root: Path, captioned: Captioned, title: str) -> StageRef:
    inputs = DatasetInputs(captioned.clips, captioned.brief, captioned.keyframes, captioned.caption)
    return run_stage(inputs, DatasetConfig(title=title), LocalStore(root)).ref


def recaptioned(root: Path, captioned: Captioned) -> Captioned:
    """Publish other captions of the same clips."""
    store = LocalStore(root)
    tables = {name: read_table(store, captioned.caption, name) for name in ("differentials", "captions")}
    told = tables["differentials"]
    other = pa.array([f"{caption} Again." for caption in told["caption"].to_pylist()])
    tables["differentials"] = told.set_column(told.schema.get_field_index("caption"), "caption", other)
    inputs = load_manifest(store, captioned.caption).inputs
    output = ShardSet(store, "caption", "1", inputs=inputs, config=CaptionConfig(window=3))
    output.commit(0, tables)
    return replace(captioned, caption=output.publish(1).ref)


def ask(fake: FakeEngine, root: Path, *words: str, prompts: str = "null") -> Result:
    engine = f"{{url: {fake.base_url}, model: fake, dialect: teacher, retries: 0, prompts: {prompts}}}"
    settings = ["--set", f"engines.captioner={engine}", "--set", "engines.summarizer=null"]
    return CliRunner().invoke(app, ["caption", *words, "--store", str(root), *settings])


def test_spans_are_captioned_where_no_video_and_no_picture_is_left(
    fake_engine: FakeEngine, root: Path, captioned: Captioned, dataset: StageRef
) -> None:
    shutil.rmtree(captioned.source)
    shutil.rmtree(root / captioned.keyframes.prefix)
    said = ask(fake_engine, root, "clip-red", "--span", "0.5-2", "--span", "0-1.5")
    assert said.exit_code == 0, said.output
    first, second = map(json.loads, said.stdout.splitlines())
    assert first["caption"].startswith("Caption ")
    del first["caption"], second["caption"]
    whole = {"clip_id": "clip-red", "checks": []}
    assert first == {**whole, "start_s": 0.5, "end_s": 2.0, "differentials": [1], "context": [0]}
    assert second == {**whole, "start_s": 0.0, "end_s": 1.5, "differentials": [0, 1], "context": []}
    assert [call["images"] for call in fake_engine.calls()] == [[], []]
    assert "A small red square is on a grey background." in fake_engine.calls()[0]["prompt"]


@pytest.mark.parametrize("name", ["clip-red", "clip-r", "red.mp4"])
def test_a_clip_has_many_names(fake_engine: FakeEngine, root: Path, dataset: StageRef, name: str) -> None:
    said = ask(fake_engine, root, name, "--span", "0-2")
    assert json.loads(said.stdout)["clip_id"] == "clip-red"


def test_the_output_of_the_caption_stage_will_do(
    fake_engine: FakeEngine, root: Path, captioned: Captioned
) -> None:
    said = ask(fake_engine, root, "clip-red", "--span", "0-2")
    assert json.loads(said.stdout)["differentials"] == [0, 1]
    said = ask(fake_engine, root, "clip-g", "--span", "0-2", "--dataset", str(captioned.caption))
    assert json.loads(said.stdout)["clip_id"] == "clip-green"


def test_of_several_datasets_one_must_be_chosen(
    fake_engine: FakeEngine, root: Path, captioned: Captioned, dataset: StageRef
) -> None:
    other = publish_dataset(root, recaptioned(root, captioned), "The same clips")
    said = ask(fake_engine, root, "clip-red", "--span", "0-2")
    assert said.exit_code == 2
    assert "2 outputs hold this clip (clip-red): choose one with --dataset:" in said.stderr
    assert str(dataset) in said.stderr
    said = ask(fake_engine, root, "clip-red", "--span", "0-2", "--dataset", str(other))
    assert said.exit_code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["clip-red", "--span", "1-2.5"],
            "not within the clip (clip-red, 1-2.5): the clip goes from 0.00",
        ),
        (["clip-red", "--span", "2-1"], "not a span of time (2-1)"),
        (["clip-red", "--span", "soon"], "not a span of time (soon)"),
        (["clip-", "--span", "0-1"], "the name means 3 clips (clip-): give a clip_id: clip-blue, clip-green"),
        (["nobody", "--span", "0-1"], "no captioned clip has this name (nobody)"),
        (["", "--span", "0-1"], "no captioned clip has this name"),
        (["clip-red", "clip-blue", "--span", "0-1"], "one video at a time"),
        (["clip-red", "--span", "0-1", "--follow"], "give one of the two"),
        (["clip-red", "--dataset", "dataset/x@y"], "give a --span"),
        (["clip-red", "--span", "0-1", "--dataset", "keyframes/x@y"], "holds no captions"),
        (["clip-red", "--span", "0-1", "--dataset", "dataset/x@y"], "no published output"),
    ],
)
def test_mistakes_are_said(
    fake_engine: FakeEngine, root: Path, dataset: StageRef, words: list[str], sentence: str
) -> None:
    said = ask(fake_engine, root, *words)
    assert said.exit_code == 2
    assert sentence in said.stderr
    assert fake_engine.calls() == []


def test_an_empty_store_holds_no_captions(fake_engine: FakeEngine, root: Path) -> None:
    assert "nothing is captioned" in ask(fake_engine, root, "clip-red", "--span", "0-1").stderr


def test_an_engine_without_an_answer_is_said(fake_engine: FakeEngine, root: Path, dataset: StageRef) -> None:
    fake_engine.settings(status=500)
    said = ask(fake_engine, root, "clip-red", "--span", "0-1")
    assert said.exit_code == 2
    assert "no caption of the span" in said.stderr


def test_models_that_know_only_synthetic_clips_sum_up_their_own(
    fake_engine: FakeEngine, root: Path, dataset: StageRef
) -> None:
    words = ["caption", "clip-red", "--span", "0-1", "--store", str(root)]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 2
    assert "nano-summarizer knows only the synthetic clips" in said.stderr


def test_clips_of_the_caption_stage_have_their_files_names_too(
    fake_engine: FakeEngine, root: Path, work_root: Path
) -> None:
    store = LocalStore(root)
    inputs = inputs_of(store, fake_engine.spec(), lengths=[3, 2], parts=1)
    run_caption(inputs, CaptionConfig(shards=1), store)
    said = ask(fake_engine, root, "0.mp4", "--span", "3-30")
    assert json.loads(said.stdout)["clip_id"] == "clip-00"
    assert json.loads(said.stdout)["differentials"] == [2]
    shutil.rmtree(root / "dedup")
    assert ask(fake_engine, root, "0.mp4", "--span", "3-30").exit_code == 2
    assert json.loads(ask(fake_engine, root, "clip-00", "--span", "3-30").stdout)["end_s"] == 30.0


def test_own_prompts_and_checks_are_those_of_the_settings(
    fake_engine: FakeEngine, root: Path, dataset: StageRef
) -> None:
    fake_engine.settings(finish_reason="length")
    span = {"user": "Von {start_s} bis {end_s}: {captions} {context}"}
    prompts = json.dumps({"name": "german", "base": "teacher", "roles": {"span": span}})
    words = ("clip-red", "--span", "0.5-2", "--set", "caption.checks.off=[truncated]")
    said = ask(fake_engine, root, *words, prompts=prompts)
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["checks"] == []
    (call,) = fake_engine.calls()
    assert "Von 0.50 bis 2.00:" in call["prompt"]


def test_outputs_with_the_same_captions_are_one(
    fake_engine: FakeEngine, root: Path, captioned: Captioned, dataset: StageRef
) -> None:
    publish_dataset(root, captioned, "The same clips")
    said = ask(fake_engine, root, "clip-red", "--span", "0-2")
    assert said.exit_code == 0, said.output


def test_of_versions_the_newest_is_asked(
    fake_engine: FakeEngine, root: Path, captioned: Captioned, dataset: StageRef, tmp_path: Path
) -> None:
    store = LocalStore(root)
    for colours in (["white"], ["white"]):
        new = publish_captioned(store, tmp_path, colours)
        inputs = DatasetInputs(new.clips, new.brief, new.keyframes, new.caption, dataset)
        dataset = run_stage(inputs, DatasetConfig(), store).ref
    assert find_clip(store, "clip-red").ref == dataset
    said = ask(fake_engine, root, "clip-red", "--span", "0-2")
    assert said.exit_code == 0, said.output


def test_a_damaged_output_is_said_only_where_nothing_is_found(
    fake_engine: FakeEngine, root: Path, dataset: StageRef
) -> None:
    (root / "dataset" / "broken").mkdir()
    (root / "dataset" / "broken" / "manifest.json").write_text("{")
    assert ask(fake_engine, root, "clip-red", "--span", "0-2").exit_code == 0
    said = ask(fake_engine, root, "nobody", "--span", "0-2")
    assert said.exit_code == 2
    assert "damaged" in said.stderr
