from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from share4video.captioning.engine import ENDPOINTS_VARIABLE, identity
from share4video.config import BriefConfig, ChecksConfig, DedupConfig, EngineSpec
from share4video.curation.encoders import text_encoder
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.media.probe import content_hash
from share4video.media.sampling import uniform_indices
from share4video.stages import dedup
from share4video.stages.brief import BriefInputs, finish, plan, run_shard, run_stage
from share4video.store import LocalStore, Store
from tests.curation.films import clip_row, publish_clips
from tests.curation.test_neural import tiny_bert
from tests.engines import FakeEngine, running_fake_engine
from tests.media.clips import FPS, picture, write_clip
from tests.serving.clips import write_noise

CONFIG = BriefConfig()
CLIPS = 5


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for number in range(CLIPS):
        write_clip(folder / f"film-{number}.mp4", frames=24, still=picture(number))
    return folder


@pytest.fixture(scope="module")
def rows(source: Path) -> list[dict[str, Any]]:
    return [clip_row(path, source) for path in sorted(source.glob("film-*.mp4"))]


def inputs_of(store: Store, rows: list[dict[str, Any]], source: Path, fake: FakeEngine) -> BriefInputs:
    return BriefInputs(publish_clips(store, rows), str(source), fake.spec(max_in_flight=2))


def files_of(store: LocalStore, ref: StageRef) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list(ref.prefix)}


def test_every_clip_gets_a_sentence_and_its_embedding(
    store: LocalStore, rows: list[dict[str, Any]], source: Path, fake_engine: FakeEngine, work_root: Path
) -> None:
    result = run_stage(inputs_of(store, rows, source, fake_engine), CONFIG, store)
    assert (result.rows_in, result.rows_out, result.rejects, result.computed_shards) == (CLIPS, CLIPS, {}, 1)
    found = read_table(store, result.ref, "brief_captions").to_pylist()
    assert [row["clip_id"] for row in found] == sorted(row["clip_id"] for row in rows)
    assert len({row["caption"] for row in found}) == CLIPS
    vectors = text_encoder("hashing").encode([row["caption"] for row in found])
    assert np.array_equal(np.array([row["embedding"] for row in found], np.float32), vectors)
    calls = fake_engine.calls()
    assert {call["prompt"] for call in calls} == {
        "Please faithfully summarize the following video in one sentence."
    }
    assert {len(call["images"]) for call in calls} == {1}  # one grid
    assert {call["body"]["max_tokens"] for call in calls} == {CONFIG.max_tokens}


def test_key_frames_may_stand_for_the_frames(
    store: LocalStore, rows: list[dict[str, Any]], source: Path, fake_engine: FakeEngine, work_root: Path
) -> None:
    inputs = inputs_of(store, rows, source, fake_engine)
    assert "max_shift_s" not in run_stage(inputs, CONFIG, store).metrics
    result = run_stage(inputs, BriefConfig(decode="nearest-iframe"), store)
    assert result.rows_out == CLIPS
    farthest_s = uniform_indices(24, CONFIG.frames)[-1] / FPS  # the one key frame comes first
    shifts_s = read_table(store, result.ref, "brief_captions")["shift_s"].to_pylist()
    assert shifts_s == pytest.approx([farthest_s] * CLIPS)
    assert result.metrics["max_shift_s"] == result.metrics["mean_shift_s"] == pytest.approx(farthest_s)


def test_a_second_run_asks_nothing(
    store: LocalStore, rows: list[dict[str, Any]], source: Path, fake_engine: FakeEngine, work_root: Path
) -> None:
    inputs = inputs_of(store, rows, source, fake_engine)
    first = run_stage(inputs, CONFIG, store)
    fake_engine.settings(status=500)
    assert run_stage(inputs, CONFIG, store).ref == first.ref
    assert run_stage(inputs, CONFIG, store).unchanged
    assert fake_engine.calls() == []


def test_a_moved_embedder_changes_no_key(
    store: LocalStore,
    rows: list[dict[str, Any]],
    source: Path,
    fake_engine: FakeEngine,
    work_root: Path,
    tmp_path: Path,
) -> None:
    tiny_bert(tmp_path / "here")
    inputs = inputs_of(store, rows, source, fake_engine)
    first = run_stage(inputs, CONFIG.model_copy(update={"embedder": f"bert:{tmp_path}/here"}), store)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = run_stage(inputs, CONFIG.model_copy(update={"embedder": f"bert:{tmp_path}/there"}), store)
    assert moved.unchanged and moved.ref == first.ref
    assert str(tmp_path).encode() not in store.get(f"{first.ref.prefix}/manifest.json")
    deduplicated = dedup.run_stage(
        dedup.DedupInputs(inputs.clips, first.ref, str(source)), DedupConfig(mode="text"), store
    )
    assert deduplicated.rows_in == CLIPS


def test_shards_are_captioned_apart_and_say_the_same(
    store: LocalStore, rows: list[dict[str, Any]], source: Path, fake_engine: FakeEngine, work_root: Path
) -> None:
    inputs = inputs_of(store, rows, source, fake_engine)
    whole = run_stage(inputs, CONFIG, store)
    config = CONFIG.model_copy(update={"shards": 3})
    assert plan(inputs, config, store) == [0, 1, 2]
    for shard in (2, 0):
        assert run_shard(inputs, config, store, shard)
        assert not run_shard(inputs, config, store, shard)
    with pytest.raises(RuntimeError, match=r"shards \[1\] are not committed"):
        finish(inputs, config, store)
    asked = len(fake_engine.calls())
    result = run_stage(inputs, config, store)  # goes on where the shards were left
    assert (result.computed_shards, result.total_shards, result.rows_out) == (1, 3, CLIPS)
    assert asked < len(fake_engine.calls()) == 2 * CLIPS

    def said(ref: StageRef) -> list[dict[str, Any]]:
        return read_table(store, ref, "brief_captions").sort_by("clip_id").to_pylist()

    assert said(result.ref) == said(whole.ref)
    assert finish(inputs, config, store).ref == result.ref


def test_what_cannot_be_decoded_is_a_reject(
    store: LocalStore,
    rows: list[dict[str, Any]],
    source: Path,
    fake_engine: FakeEngine,
    work_root: Path,
    tmp_path: Path,
) -> None:
    for path in source.iterdir():
        shutil.copy(path, tmp_path)
    words = tmp_path / "words.mp4"
    words.write_text("not a video")
    broken = {**rows[0], "source_uri": words.name, "content_hash": content_hash(words), "clip_id": "a"}
    outside = {**rows[0], "source_uri": "../../etc/passwd", "clip_id": "b"}
    result = run_stage(inputs_of(store, [broken, *rows[1:], outside], tmp_path, fake_engine), CONFIG, store)
    assert (result.rows_in, result.rows_out) == (CLIPS + 1, CLIPS - 1)
    rejects = read_table(store, result.ref, "rejects").to_pylist()
    assert {row["source_uri"]: row["reason"] for row in rejects} == {
        "words.mp4": "not_video",
        "../../etc/passwd": "not_allowed",
    }
    assert not any(str(tmp_path) in row["sentence"] for row in rejects)


def test_another_source_publishes_nothing_and_the_right_one_still_can(
    store: LocalStore,
    rows: list[dict[str, Any]],
    source: Path,
    fake_engine: FakeEngine,
    work_root: Path,
    tmp_path: Path,
) -> None:
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        shutil.copy(source / other["source_uri"], tmp_path / row["source_uri"])
    for wrong in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"does not hold clip \w+ as it was probed"):
            run_stage(inputs_of(store, rows, wrong, fake_engine), CONFIG, store)
        assert not [key for key in store.list("brief") if "locks" not in key]
    assert fake_engine.calls() == []
    assert run_stage(inputs_of(store, rows, source, fake_engine), CONFIG, store).rows_out == CLIPS


def test_a_clip_no_engine_can_take_is_the_same_reject_wherever_the_engine_runs(
    tmp_path: Path, rows: list[dict[str, Any]], source: Path, fake_engine: FakeEngine, work_root: Path
) -> None:
    with running_fake_engine() as other:
        inputs_of_calm = inputs_of(calm := LocalStore(tmp_path / "calm"), rows, source, other)
        run_stage(inputs_of_calm, CONFIG, calm)
        poison = other.calls()[0]["images"][0]
        hashes, sentences = set(), set()
        for number, engine in enumerate((fake_engine, other)):
            engine.settings(bad_image=poison, bad_status=500)
            store = LocalStore(tmp_path / f"{number}")
            spec = engine.spec(max_in_flight=2, retries=0)
            result = run_stage(BriefInputs(publish_clips(store, rows), str(source), spec), CONFIG, store)
            assert (result.rows_out, result.rejects) == (CLIPS - 1, {"caption_failed": 1})
            hashes.add(result.ref.content_hash)
            sentences |= set(read_table(store, result.ref, "rejects")["sentence"].to_pylist())
    assert len(hashes) == 1
    assert sentences == {"HTTP 500"}


def test_a_failure_that_passes_costs_no_clip(
    tmp_path: Path, rows: list[dict[str, Any]], source: Path, fake_engine: FakeEngine, work_root: Path
) -> None:
    calm, shaken = LocalStore(tmp_path / "calm"), LocalStore(tmp_path / "shaken")
    expected = run_stage(inputs_of(calm, rows, source, fake_engine), CONFIG, calm)
    fake_engine.settings(first_status=[0, 503, 503, 503])
    spec = fake_engine.spec(max_in_flight=1, retries=0)
    result = run_stage(BriefInputs(publish_clips(shaken, rows), str(source), spec), CONFIG, shaken)
    assert result.ref == expected.ref
    assert len(fake_engine.calls()) == CLIPS + 3


@pytest.mark.parametrize("clips", [1, 3, CLIPS])
def test_an_engine_that_refuses_everything_publishes_nothing(
    store: LocalStore,
    rows: list[dict[str, Any]],
    source: Path,
    fake_engine: FakeEngine,
    work_root: Path,
    clips: int,
) -> None:
    inputs = inputs_of(store, rows[:clips], source, fake_engine)
    fake_engine.settings(status=422)
    with pytest.raises(UserError, match=r"refuses every request: HTTP 422 from fake at http.*as told"):
        run_stage(inputs, CONFIG, store)
    assert not [key for key in store.list("brief") if "locks" not in key]
    fake_engine.settings()
    assert run_stage(inputs, CONFIG, store).rows_out == clips


def test_an_empty_answer_is_asked_for_again_and_then_a_reject(
    store: LocalStore, rows: list[dict[str, Any]], source: Path, fake_engine: FakeEngine, work_root: Path
) -> None:
    fake_engine.settings(answer="")
    with pytest.raises(UserError, match="none of 2 rows is left, 2 of them rejected as caption_failed"):
        run_stage(inputs_of(store, rows[:2], source, fake_engine), CONFIG, store)
    asked = [(call["body"]["temperature"], "seed" in call["body"]) for call in fake_engine.calls()]
    assert sorted(asked) == [(0.0, False), (0.0, False), (0.7, True), (0.7, True)]


def test_sentences_are_held_against_the_checks_that_are_set(
    store: LocalStore, rows: list[dict[str, Any]], source: Path, fake_engine: FakeEngine, work_root: Path
) -> None:
    fake_engine.settings(answer="一只狗在草地上奔跑, 然后停下来了。")
    inputs = inputs_of(store, rows, source, fake_engine)
    flagged = run_stage(inputs, CONFIG, store)
    assert (flagged.metrics["flagged_captions"], len(fake_engine.calls())) == (CLIPS, 2 * CLIPS)
    sound = run_stage(inputs, BriefConfig(checks=ChecksConfig(language="zh")), store)
    assert (sound.metrics["flagged_captions"], len(fake_engine.calls())) == (0, 3 * CLIPS)
    assert sound.ref.key != flagged.ref.key
    judge = ChecksConfig(judge=fake_engine.spec())
    assert run_stage(inputs, BriefConfig(checks=judge), store).ref == flagged.ref


def test_a_model_for_synthetic_clips_is_not_believed_on_others(
    store: LocalStore,
    fake_engine: FakeEngine,
    work_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    film = write_noise(tmp_path / "noise.mp4")
    model = tmp_path / "tiny"
    model.mkdir()
    (model / "config.json").write_text('{"domain": "synthetic"}')
    header = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    local = EngineSpec(model_path=str(model), model="tiny", revision="1")
    monkeypatch.setenv(ENDPOINTS_VARIABLE, json.dumps({identity(local): f"{fake_engine.base_url}#fake"}))
    clips = publish_clips(store, [clip_row(film, tmp_path)])
    with pytest.raises(UserError, match="knows only the synthetic clips"):
        run_stage(BriefInputs(clips, str(tmp_path), local), CONFIG, store)
    with pytest.raises(UserError, match="knows only the synthetic clips"):  # also of what is published
        run_stage(BriefInputs(clips, str(tmp_path), local), CONFIG, store)
    assert fake_engine.calls() == []


def test_an_unknown_embedder_is_said_first(
    store: LocalStore, rows: list[dict[str, Any]], source: Path, fake_engine: FakeEngine, work_root: Path
) -> None:
    with pytest.raises(UserError, match="unknown text encoder"):
        run_stage(inputs_of(store, rows, source, fake_engine), BriefConfig(embedder="none"), store)
    assert fake_engine.calls() == []


KILLED = """
import sys
from share4video.captioning.engine import ENDPOINTS_VARIABLE, identity
from share4video.config import BriefConfig, EngineSpec
from share4video.dataset.manifest import StageRef
from share4video.stages.brief import BriefInputs, finish, plan, run_shard, run_stage
from share4video.store import Store
from tests.engines import FakeEngine
root, clips, source, url = sys.argv[1:]
inputs = BriefInputs(StageRef.parse(clips), source, FakeEngine(url).spec(max_in_flight=2))
run_stage(inputs, BriefConfig(), Store.open(root))
"""


@pytest.mark.timeout(300)
def test_a_killed_run_goes_on_and_ends_byte_identical(
    tmp_path: Path, rows: list[dict[str, Any]], source: Path, fake_engine: FakeEngine, work_root: Path
) -> None:
    calm, killed = LocalStore(tmp_path / "calm"), LocalStore(tmp_path / "killed")
    expected = run_stage(inputs_of(calm, rows, source, fake_engine), CONFIG, calm)
    inputs = inputs_of(killed, rows, source, fake_engine)
    fake_engine.settings(latency_s=0.4)
    arguments = [str(killed.root), str(inputs.clips), str(source), fake_engine.base_url]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], cwd=Path(__file__).parents[2])
    while len(fake_engine.calls()) < 4 and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    result = run_stage(inputs, CONFIG, killed)
    assert CLIPS <= len(fake_engine.calls()) <= CLIPS + 2
    assert result.ref == expected.ref
    assert files_of(killed, result.ref) == files_of(calm, expected.ref)
