from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from share4video.captioning.model_server import ModelServer
from share4video.config import CaptionConfig, EngineSpec
from share4video.errors import UserError
from share4video.stages.caption import CaptionInputs, finish, plan, run_shard, run_stage
from share4video.stages.task import summary_markdown
from share4video.store import LocalStore
from tests.engines import FakeEngine
from tests.stages.caption_material import (
    CONFIG,
    LENGTHS,
    files_of,
    inputs_of,
    publish_inputs,
    rows_of,
)


def test_every_key_frame_is_captioned_and_every_clip_summarised(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    inputs = inputs_of(store, fake_engine.spec())
    result = run_stage(inputs, CONFIG, store)
    assert (result.rows_in, result.rows_out, result.rejects) == (6, 6, {})
    assert (result.computed_shards, result.total_shards) == (2, 2)
    differentials = rows_of(store, result, "differentials")
    assert result.metrics == {
        "differentials": 17,
        "fallbacks": 0,
        "flagged_captions": 0,
        "captioner_prompt_tokens": 17 * 7,
        "captioner_completion_tokens": sum(row["tokens"] for row in differentials),
        "summarizer_prompt_tokens": 6 * 7,
        "summarizer_completion_tokens": 6 * 5,
    }
    assert Counter(row["clip_id"] for row in differentials) == {
        f"clip-{n:02d}": length for n, length in enumerate(LENGTHS)
    }
    third = [row for row in differentials if row["clip_id"] == "clip-00"][2]
    assert (third["index"], third["kind"], third["start_s"], third["end_s"]) == (2, "difference", 2.5, 5.0)
    who = {"engine": "fake@1", "dialect": "sharecaptioner", "prompt_version": "sharecaptioner-1"}
    assert who.items() <= third.items()
    summaries = rows_of(store, result, "captions")
    assert [row["role"] for row in summaries] == ["summary"] * 6
    assert {(row["start_s"], row["end_s"], *row["checks"]) for row in summaries} == {(0.0, 30.0)}
    prompts = [call["prompt"] for call in fake_engine.calls()]
    assert any("Video frame 2 at 2.50 Second(s) and Video frame 3 at 5.00 Second(s)" in p for p in prompts)
    assert not list((work_root / "journals").iterdir())


def test_a_second_run_asks_nothing(store: LocalStore, fake_engine: FakeEngine, work_root: Path) -> None:
    inputs = inputs_of(store, fake_engine.spec())
    first = run_stage(inputs, CONFIG, store)
    fake_engine.settings(status=500)
    again = run_stage(inputs, CONFIG, store)
    assert again.unchanged
    assert replace(again, computed_shards=first.computed_shards) == first
    assert fake_engine.calls() == []


@pytest.mark.parametrize(("shards", "parts"), [(1, 1), (5, 2), (1, 3), (4, 4), (9, 1)])
def test_the_division_changes_nothing_but_the_files(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path, shards: int, parts: int
) -> None:
    def sorted_rows(config: CaptionConfig, parts: int) -> list[dict[str, Any]]:
        inputs = inputs_of(store, fake_engine.spec(), parts=parts)
        result = run_stage(inputs, config, store)
        assert result.total_shards == max(config.shards, parts)
        assert result.rows_out == len(LENGTHS)
        return sorted(rows_of(store, result, "differentials"), key=lambda r: (r["clip_id"], r["index"]))

    assert sorted_rows(CaptionConfig(shards=shards), parts) == sorted_rows(CONFIG, 2)


def test_shards_run_anywhere_in_any_order(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    inputs = inputs_of(store, fake_engine.spec())
    shards = plan(inputs, CONFIG, store)
    with pytest.raises(RuntimeError, match="not committed"):
        finish(inputs, CONFIG, store)
    assert [run_shard(inputs, CONFIG, store, shard) for shard in reversed(shards)] == [True, True]
    assert not run_shard(inputs, CONFIG, store, 0)
    result = finish(inputs, CONFIG, store)
    assert (result.computed_shards, result.unchanged) == (None, False)
    assert "(shards computed or reused: 2)" in summary_markdown(result, {})
    assert finish(inputs, CONFIG, store).unchanged
    assert result.ref == run_stage(inputs, CONFIG, store).ref


def test_the_summary_is_the_summarizers(store: LocalStore, fake_engine: FakeEngine, work_root: Path) -> None:
    summarizer = fake_engine.spec(model="words", revision="9", dialect="teacher")
    result = run_stage(inputs_of(store, fake_engine.spec(), summarizer), CONFIG, store)
    assert {row["engine"] for row in rows_of(store, result, "differentials")} == {"fake@1"}
    assert {(row["engine"], row["prompt_version"]) for row in rows_of(store, result, "captions")} == {
        ("words@9", "teacher-2")
    }
    calls = fake_engine.calls()
    assert Counter(call["body"]["model"] for call in calls) == {"fake": sum(LENGTHS), "words": len(LENGTHS)}
    assert all(call["images"] == [] for call in calls if call["body"]["model"] == "words")


def test_the_fast_caption_is_there_where_it_is_asked_for(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    result = run_stage(inputs_of(store, fake_engine.spec()), CONFIG.model_copy(update={"fast": True}), store)
    assert Counter(row["role"] for row in rows_of(store, result, "captions")) == {"summary": 6, "fast": 6}


def test_what_the_output_depends_on_is_in_its_key(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    refs = publish_inputs(store, [1])
    specs = [
        fake_engine.spec(),
        fake_engine.spec(revision="2"),
        fake_engine.spec(dialect="teacher"),
        fake_engine.spec(max_in_flight=9),
    ]
    keys = [run_stage(CaptionInputs(*refs, spec), CONFIG, store).ref.key for spec in specs]
    assert len(set(keys)) == 3
    assert keys[0] == keys[3]  # how it is called is not what it is


def test_rows_in_are_rows_out_and_rejects(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    fake_engine.settings(bad_prompt="Video frame 2 at 2.50 Second(s) and Video frame 3")
    result = run_stage(inputs_of(store, fake_engine.spec()), CONFIG, store)
    assert (result.rows_in, result.rows_out, result.rejects) == (6, 4, {"caption_failed": 2})
    (first, _) = rejects = rows_of(store, result, "rejects")
    assert {row["row_id"] for row in rejects} == {"row-00", "row-04"}
    assert first["measured"] == pytest.approx(1 / 3)
    assert first["bound"] == 0.2
    assert "clip-00" not in {row["clip_id"] for row in rows_of(store, result, "differentials")}
    (stand_in,) = [row for row in rows_of(store, result, "differentials") if row["fallback"]]
    assert (stand_in["clip_id"], stand_in["index"], stand_in["kind"]) == ("clip-02", 2, "anchor")


def test_no_clips_are_no_trouble(store: LocalStore, fake_engine: FakeEngine, work_root: Path) -> None:
    result = run_stage(inputs_of(store, fake_engine.spec(), lengths=[], parts=1), CONFIG, store)
    assert (result.rows_in, result.rows_out) == (0, 0)


def test_an_engine_that_stops_leaves_nothing_that_looks_finished(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    inputs = inputs_of(store, fake_engine.spec(retries=0))
    fake_engine.settings(status=503)
    with pytest.raises(UserError, match="does not answer"):
        run_stage(inputs, CONFIG, store)
    assert not [key for key in store.list("caption") if "locks" not in key]
    fake_engine.settings()
    assert run_stage(inputs, CONFIG, store).rows_out == 6


def test_an_engine_that_dies_for_the_last_calls_costs_no_clip(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    inputs = inputs_of(store, fake_engine.spec(max_in_flight=1, retries=1))
    calls = sum(LENGTHS) + len(LENGTHS)
    fake_engine.settings(first_status=[0] * (calls - 2) + [500] * 99)
    with pytest.raises(UserError, match="does not answer"):
        run_stage(inputs, CONFIG, store)
    fake_engine.settings()
    result = run_stage(inputs, CONFIG, store)
    assert (result.rows_out, result.computed_shards) == (6, 1)
    assert len(fake_engine.calls()) == 2  # the journal has kept the others


def test_a_summarizer_that_refuses_everything_is_noticed(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    summarizer = fake_engine.spec(model="words", revision="9", dialect="teacher")
    inputs = inputs_of(store, fake_engine.spec(), summarizer)
    fake_engine.settings(bad_prompt="### Character")
    with pytest.raises(UserError, match=r"refuses every request: HTTP 400 .* \(words\)"):
        run_stage(inputs, CONFIG, store)
    assert not [key for key in store.list("caption") if "locks" not in key]
    fake_engine.settings()
    assert run_stage(inputs, CONFIG, store).rows_out == 6


KILLED = """
import sys
from pathlib import Path
from share4video.dataset.manifest import StageRef
from share4video.stages.caption import CaptionInputs, run_stage
from share4video.store import Store
from tests.engines import FakeEngine
from tests.stages.caption_material import CONFIG
root, clips, keyframes, url = sys.argv[1:]
engine = FakeEngine(url).spec(max_in_flight=3)
inputs = CaptionInputs(StageRef.parse(clips), StageRef.parse(keyframes), engine)
run_stage(inputs, CONFIG, Store.open(root))
"""


@pytest.mark.timeout(300)
def test_a_killed_run_goes_on_and_ends_byte_identical(
    tmp_path: Path, fake_engine: FakeEngine, work_root: Path
) -> None:
    lengths = [2 + n % 5 for n in range(14)]
    calm, killed = LocalStore(tmp_path / "calm"), LocalStore(tmp_path / "killed")
    expected = run_stage(inputs_of(calm, fake_engine.spec(), lengths=lengths), CONFIG, calm)
    calls = len(fake_engine.calls())
    inputs = inputs_of(killed, fake_engine.spec(max_in_flight=3), lengths=lengths)
    fake_engine.settings(latency_s=0.05)
    kills = 0
    for share in (0.2, 0.7):
        arguments = [str(killed.root), str(inputs.clips), str(inputs.keyframes), fake_engine.base_url]
        process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], cwd=Path(__file__).parents[2])
        while len(fake_engine.calls()) < share * calls and process.poll() is None:
            time.sleep(0.01)
        kills += process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert kills == 2
    result = run_stage(inputs, CONFIG, killed)
    assert calls <= len(fake_engine.calls()) <= calls + 3 * kills
    assert result.ref == expected.ref
    assert files_of(killed, result.ref) == files_of(calm, expected.ref)
    assert not list((work_root / "journals").iterdir())  # what the killed had left is gone, too


def test_with_a_real_model_server(
    store: LocalStore, model_server: ModelServer, checkpoints: dict[str, Path]
) -> None:
    """Random weights say nothing sound; what is shown is that the calls are understood and rows add up."""
    captioner = EngineSpec(model_path=str(checkpoints["captioner"]), retries=0)
    summarizer = EngineSpec(model_path=str(checkpoints["summarizer"]), retries=0)
    config = CaptionConfig(max_tokens_difference=6, max_tokens_summary=6, max_fallback_share=1.0, shards=1)
    inputs = inputs_of(store, captioner, summarizer, lengths=[2, 1], parts=1)
    result = run_stage(inputs, config, store)
    assert (result.rows_in, result.rows_out) == (2, 2)
    differentials = rows_of(store, result, "differentials")
    assert len(differentials) == 3
    assert all(row["engine"].startswith("captioner@") and row["fallback"] for row in differentials)
    assert {tuple(row["checks"])[-1] for row in rows_of(store, result, "captions")} == {"truncated"}
