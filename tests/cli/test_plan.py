"""``share4video plan`` as a person runs it: a pilot, an estimate, and afterwards what came of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from share4video.cli.main import app
from share4video.config import CaptionConfig, DatasetConfig
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import ShardSet, load_manifest, read_table, table_from_rows
from share4video.planning.actual import read_actual
from share4video.planning.estimate import Plan
from share4video.stages.caption import CaptionInputs
from share4video.stages.caption import run_stage as run_caption
from share4video.stages.dataset import DatasetInputs
from share4video.stages.dataset import run_stage as publish_dataset
from share4video.store import LocalStore
from tests.engines import FakeEngine
from tests.media.clips import write_clip
from tests.stages.captioned import publish_captioned

SETTINGS = (
    "probe.min_duration_s=1",
    "probe.min_height=48",
    "keyframes.mode=uniform",
    "keyframes.interval_s=0.5",
    "dedup.visual_threshold=1.0",
    "dedup.text_threshold=1.0",
    "engines.summarizer=null",
)


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work_root: Path, local_copies: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(12):
        write_clip(folder / f"{number:02d}.mp4", frames=30 + 2 * number)
    monkeypatch.chdir(tmp_path)
    return folder


def call(engine: FakeEngine, *arguments: str) -> tuple[int, str, str]:
    settings = (f"engines.captioner={engine.spec().model_dump_json()}", *SETTINGS)
    given = [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(app, [arguments[0], "--store", "store", *given, *arguments[1:]])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_plan_from_all_rows_is_what_the_run_then_takes(
    films: Path, fake_engine: FakeEngine, tmp_path: Path
) -> None:
    code, told, _ = call(fake_engine, "plan", "films", "--pilot", "50", "--out", "plan.json")
    assert code == 0
    assert "12 rows, planned from 12 of them" in told
    assert "the interval means little" not in told
    plan = Plan.model_validate_json((tmp_path / "plan.json").read_bytes())
    code, told, _ = call(fake_engine, "caption", "films")
    assert code == 0
    ref = StageRef.parse(told.split()[1])
    actual = read_actual(LocalStore(tmp_path / "store"), ref)
    brief = plan.calls["brief"]
    assert (plan.clips.estimate, plan.key_frames.estimate) == (actual.clips, actual.key_frames)
    assert plan.total_calls.estimate - brief == actual.calls
    assert plan.tokens.estimate == pytest.approx(
        actual.tokens + brief * plan.measured.captioner.roles["brief"].tokens, rel=0.01
    )
    code, told, _ = call(fake_engine, "plan", "--against", "plan.json", "--actual", str(ref))
    assert code == 0
    assert "not kept" not in told
    rows = [line for line in told.splitlines() if "key frames" in line or "clips" in line]
    assert all("1.00" in row for row in rows)


def test_a_part_is_multiplied_and_nothing_is_asked_where_rates_are_known(
    films: Path, fake_engine: FakeEngine, tmp_path: Path
) -> None:
    code, _, _ = call(fake_engine, "plan", "films", "--pilot", "4", "--save-rates", "rates.json")
    assert code == 0
    asked = len(fake_engine.calls())
    prices = ("--gpus", "2", "--gpu-hour", "3")
    code, told, _ = call(
        fake_engine, "plan", "films", "--pilot", "4", "--rates", "rates.json", "--out", "plan.json", *prices
    )
    assert code == 0
    assert len(fake_engine.calls()) == asked  # the pilot's clips were curated before
    plan = Plan.model_validate_json((tmp_path / "plan.json").read_bytes())
    assert plan.rows == 12
    assert 0 < plan.pilot_rows < 12
    assert plan.clips.estimate == pytest.approx(12)
    assert plan.gpu_hours == pytest.approx(2 * plan.hours.estimate)
    assert plan.cost == pytest.approx(6 * plan.hours.estimate)
    assert "GPU hours" in told
    assert "with fewer than 10 the interval means little" in told


def test_a_shard_of_work_leaves_word_of_how_long_it_took(
    films: Path, fake_engine: FakeEngine, tmp_path: Path
) -> None:
    fake_engine.settings(latency_s=0.05)
    _, told, _ = call(fake_engine, "caption", "films", "--set", "caption.shards=1")
    store = LocalStore(tmp_path / "store")
    ref = StageRef.parse(told.split()[1])
    hours = read_actual(store, ref).hours
    assert hours is not None
    manifest = load_manifest(store, ref)
    in_flight = fake_engine.spec().max_in_flight
    calls = manifest.rows("differentials") + manifest.rows("captions")
    assert hours * 3600 >= calls * 0.05 / in_flight
    call(fake_engine, "caption", "films", "--set", "caption.shards=1")  # finds everything
    assert read_actual(store, ref).hours == hours


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "there is nothing to plan"),
        (["--against", "plan.json"], "a comparison needs both"),
        (["--against", "none.json", "--actual", "caption/0@0"], "cannot read the plan"),
        (["--against", "none.json", "--actual", "dataset/0@0"], "this is no output of stage caption"),
        (["films", "--rates", "none.json"], "cannot read the rates"),
        (["films", "--set", "probe.shard=1/2"], "a plan takes a part of its own"),
    ],
)
def test_mistakes_are_one_sentence(
    films: Path, fake_engine: FakeEngine, arguments: list[str], told: str
) -> None:
    code, _, said = call(fake_engine, "plan", *arguments)
    assert code == 2
    assert told in said
    assert len([line for line in said.splitlines() if line.startswith("share4video:")]) == 1


def test_what_is_no_file_of_rates_is_named(films: Path, fake_engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_text(json.dumps({"captioner": {"engine": "x"}}))
    code, _, said = call(fake_engine, "plan", "films", "--rates", "rates.json")
    assert code == 2
    assert "these are no rates" in said


def test_the_pilot_is_measured_with_the_cuts_of_a_run(
    films: Path, fake_engine: FakeEngine, tmp_path: Path
) -> None:
    settings = ("caption.cut_threshold=1", "keyframes.mode=paper", "keyframes.threshold=1")
    cut = [word for setting in settings for word in ("--set", setting)]
    code, _, _ = call(fake_engine, "plan", "films", "--pilot", "4", "--out", "plan.json", *cut)
    assert code == 0
    plan = Plan.model_validate_json((tmp_path / "plan.json").read_bytes())
    assert plan.calls["anchor"] > 0
    assert "anchor" in plan.measured.captioner.roles
    assert "difference" not in plan.measured.captioner.roles


def test_what_was_taken_over_is_not_counted(
    store: LocalStore, fake_engine: FakeEngine, tmp_path: Path, work_root: Path
) -> None:
    made = publish_captioned(store, tmp_path, ["red", "green"])
    inputs = DatasetInputs(made.clips, made.brief, made.keyframes, made.caption)
    published = publish_dataset(inputs, DatasetConfig(), store).ref
    again = CaptionInputs(made.clips, made.keyframes, fake_engine.spec(), published=published)
    ref = run_caption(again, CaptionConfig(), store).ref
    assert load_manifest(store, ref).rows("differentials") == 4
    actual = read_actual(store, ref)
    assert (actual.clips, actual.key_frames, actual.calls, actual.tokens) == (0, 0, 0, 0)
    assert read_actual(store, made.caption).calls == 6


def test_calls_without_an_answer_are_not_counted(store: LocalStore, tmp_path: Path) -> None:
    made = publish_captioned(store, tmp_path, ["red"])
    whole = read_actual(store, made.caption)
    captions = read_table(store, made.caption, "captions")
    failed = captions.to_pylist()[0] | {"role": "prompt", "caption": "", "tokens": 0, "prompt_tokens": 0}
    rows = [*captions.to_pylist(), failed | {"checks": ["call_failed"]}]
    output = ShardSet(store, "caption", "1", inputs=["a", "b"], config=CaptionConfig(short_prompts=True))
    told = {
        "differentials": read_table(store, made.caption, "differentials"),
        "captions": table_from_rows("captions", rows),
    }
    output.commit(0, told)
    assert read_actual(store, output.publish(1).ref) == whole


@pytest.mark.parametrize(
    "arguments",
    [
        ("--out", "missing/plan.json"),
        ("--save-rates", "missing/rates.json"),
        ("--rates", "none.json"),
        ("--rates", "films/00.mp4"),
    ],
)
def test_a_wrong_file_is_found_before_the_pilot(
    films: Path, fake_engine: FakeEngine, tmp_path: Path, arguments: tuple[str, str]
) -> None:
    code, _, said = call(fake_engine, "plan", "films", "--out", "plan.json", *arguments)
    assert code == 2
    assert arguments[1] in said
    assert fake_engine.calls() == []
    assert not (tmp_path / "store" / "probe").exists()
    assert not (tmp_path / "plan.json").exists()
