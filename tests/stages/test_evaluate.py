"""The evaluation stage: what it publishes, when it asks again, and how it goes on after a kill."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from share4video.config import EngineSpec, EvaluateConfig, TrainConfig
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.shards import ShardSet
from share4video.errors import UserError
from share4video.evaluation.results import CONTROL, RESULTS, read_results
from share4video.stages import evaluate
from share4video.stages.evaluate import EvaluateInputs, limit_questions, parse_model, run_stage
from share4video.store import LocalStore, Store
from tests.evaluation.engine_host import Body, EngineHost, engine_host, image_of, text_of
from tests.evaluation.material import record, write_clip, write_questions

CONFIG = EvaluateConfig()
COLOURS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips, six questions: ``clips`` and ``questions`` below one folder."""
    folder = tmp_path_factory.mktemp("material")
    tasks: dict[str, list[dict[str, object]]] = {"colour": [], "order": []}
    for colour in COLOURS:
        write_clip(folder / "clips" / f"{colour}.mp4", [colour])
        tasks["colour"].append(record(f"{colour}.mp4", "What colour?", COLOURS, colour))
        tasks["order"].append(record(f"{colour}.mp4", "What is first?", ["this", "that"], "this"))
    write_questions(folder / "questions", tasks)
    return folder


@pytest.fixture
def host() -> Iterator[EngineHost]:
    with engine_host() as server:
        server.answer = perceive
        yield server


def perceive(body: Body) -> str:
    """Answer as a model that sees colours and knows no order; without an image it says A."""
    image = image_of(body)
    if image is None or "first" in text_of(body):
        return "B) that" if "first" in text_of(body) else "A)"
    pixel = image.getpixel((10, 10))
    assert isinstance(pixel, tuple)
    return f"{'ABC'[pixel.index(max(pixel))]})"


def inputs_of(material: Path, model: EngineSpec | StageRef) -> EvaluateInputs:
    return EvaluateInputs(model, str(material / "questions"), str(material / "clips"))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "QUESTIONS_PER_SHARD", 2)


# ------------------------------------------------------------------ what is published


def test_answers_and_accuracies_are_published(host: EngineHost, material: Path, store: LocalStore) -> None:
    result = run_stage(inputs_of(material, host.spec()), CONFIG, store)
    assert (result.rows_in, result.rows_out, result.rejects, result.unchanged) == (6, 6, {}, False)
    assert result.metrics["accuracy"] == 0.5
    assert result.metrics["accuracy_task_colour"] == result.metrics["accuracy_static"] == 1.0
    assert result.metrics["accuracy_task_order"] == result.metrics["accuracy_temporal"] == 0.0
    assert result.metrics["unparsable"] == 0.0
    assert result.metrics["chance"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert result.metrics["chance_temporal"] == pytest.approx(1 / 2)
    results = read_results(store, result.ref)
    assert results.model == "tiny@r1"
    assert len(results.right_by_id()) == 6
    assert [answer.question_id for answer in results.answers] == sorted(results.right_by_id())
    assert {file.name for file in load_manifest(store, result.ref).files} == {
        "answers/00000.json",
        RESULTS,
    }


def test_answers_name_their_video(host: EngineHost, material: Path, store: LocalStore) -> None:
    result = run_stage(inputs_of(material, host.spec()), EvaluateConfig(control=True), store)
    for name in (RESULTS, CONTROL):
        asked = Counter(answer.video for answer in read_results(store, result.ref, name).answers)
        assert asked == {f"{colour}.mp4": 2 for colour in COLOURS}


def test_answers_of_an_older_version_are_refused(store: LocalStore) -> None:
    output = ShardSet(store, "evaluate", "1", inputs=["q"], config=CONFIG)
    output.attach(RESULTS, b'{"protocol": "mvbench-grid-1", "model": "m@1", "answers": []}')
    output.commit(0, {}, {"rows_in": 0, "rows_out": 0})
    with pytest.raises(UserError, match="written by another version"):
        read_results(store, output.publish(1).ref)


def test_a_second_run_asks_nothing(host: EngineHost, material: Path, store: LocalStore) -> None:
    first = run_stage(inputs_of(material, host.spec()), CONFIG, store)
    asked = len(host.seen)
    second = run_stage(inputs_of(material, host.spec()), CONFIG, store)
    assert second.unchanged
    assert (second.ref, second.metrics, len(host.seen)) == (first.ref, first.metrics, asked)


def test_nothing_of_where_it_ran_is_published(
    host: EngineHost, material: Path, store: LocalStore, tmp_path: Path
) -> None:
    first = run_stage(inputs_of(material, host.spec()), CONFIG, store)
    elsewhere = LocalStore(tmp_path / "elsewhere")
    with engine_host() as other:
        other.answer = perceive
        second = run_stage(inputs_of(material, other.spec(max_in_flight=1)), CONFIG, elsewhere)
    assert first.ref == second.ref
    for key in store.list(first.ref.prefix):
        data = store.get(key)
        assert data == elsewhere.get(key)
        assert str(tmp_path).encode() not in data
        assert str(material).encode() not in data
        assert b"127.0.0.1" not in data


@pytest.mark.parametrize("change", ["model", "question", "clip", "config"])
def test_whatever_the_answers_depend_on_changes_the_output(
    host: EngineHost, material: Path, store: LocalStore, tmp_path: Path, change: str
) -> None:
    first = run_stage(inputs_of(material, host.spec()), CONFIG, store)
    inputs, config = inputs_of(material, host.spec()), CONFIG
    if change == "model":
        inputs = inputs_of(material, host.spec(revision="r2"))
    elif change == "config":
        config = EvaluateConfig(frames=4)
    else:
        copy = tmp_path / "copy"
        for folder in ("clips", "questions"):
            (copy / folder).mkdir(parents=True)
            for file in (material / folder).iterdir():
                (copy / folder / file.name).write_bytes(file.read_bytes())
        if change == "clip":
            write_clip(copy / "clips" / "red.mp4", ["blue"])
        else:
            write_questions(copy / "questions", {"order": [record("red.mp4", "New?", ["a", "b"], "a")]})
        inputs = inputs_of(copy, host.spec())
    assert run_stage(inputs, config, store).ref.key != first.ref.key


def test_videos_of_one_name_in_two_folders_both_count(
    host: EngineHost, tmp_path: Path, store: LocalStore
) -> None:
    one = [record("clip.mp4", "What colour?", COLOURS, "red")]
    write_questions(tmp_path / "questions", {"moving_count": one, "object_shuffle": one})
    folders = [tmp_path / "clips" / below for below in ("clevrer/video_validation", "perception/videos")]
    for folder in folders:
        write_clip(folder / "clip.mp4", ["red"])
    seen = {run_stage(inputs_of(tmp_path, host.spec()), CONFIG, store).ref.key}
    for folder in folders:
        write_clip(folder / "clip.mp4", ["blue"])
        seen.add(run_stage(inputs_of(tmp_path, host.spec()), CONFIG, store).ref.key)
    assert len(seen) == 3


def test_the_control_asks_the_same_without_images(
    host: EngineHost, material: Path, store: LocalStore
) -> None:
    result = run_stage(inputs_of(material, host.spec()), EvaluateConfig(control=True), store)
    control = read_results(store, result.ref, CONTROL)
    shown = read_results(store, result.ref)
    assert not control.image
    assert set(control.right_by_id()) == set(shown.right_by_id())
    assert result.metrics["control_accuracy_task_colour"] == pytest.approx(1 / 3)
    assert result.metrics["accuracy_task_colour"] == 1.0
    assert (result.rows_in, result.rows_out) == (6, 6)
    assert sum(image_of(body) is None for body in host.seen) == 6


def test_progress_reaches_its_total(host: EngineHost, material: Path, store: LocalStore) -> None:
    steps: list[tuple[str, int, int]] = []
    run_stage(
        inputs_of(material, host.spec()),
        EvaluateConfig(control=True),
        store,
        progress=lambda *step: steps.append(step),
    )
    assert [done for _, done, _ in steps] == list(range(1, 13))
    assert steps[-1] == ("questions without images", 12, 12)


def test_real_benchmarks_have_no_groups(host: EngineHost, tmp_path: Path, store: LocalStore) -> None:
    write_clip(tmp_path / "clips" / "red.mp4", ["red"])
    one = [record("red.mp4", "?", ["a", "b"], "a")]
    write_questions(tmp_path / "questions", {"moving_count": one, "object_shuffle": one})
    result = run_stage(inputs_of(tmp_path, host.spec()), CONFIG, store)
    assert "accuracy_temporal" not in result.metrics
    assert "accuracy_task_moving_count" in result.metrics


def test_a_limit_takes_from_every_task(host: EngineHost, material: Path, store: LocalStore) -> None:
    result = run_stage(inputs_of(material, host.spec()), EvaluateConfig(limit=3), store)
    assert result.rows_in == 3
    tasks = [answer.task for answer in read_results(store, result.ref).answers]
    assert sorted(tasks) == ["colour", "colour", "order"]
    assert limit_questions([], 3) == []


# ------------------------------------------------------------------ what fails


def test_a_broken_video_is_a_reject(host: EngineHost, tmp_path: Path, store: LocalStore) -> None:
    write_clip(tmp_path / "clips" / "red.mp4", ["red"])
    (tmp_path / "clips" / "bad.mp4").write_bytes(b"no video")
    records = [record(name, "What colour?", COLOURS, "red") for name in ("red.mp4", "bad.mp4")]
    write_questions(tmp_path / "questions", {"colour": records})
    result = run_stage(inputs_of(tmp_path, host.spec()), EvaluateConfig(max_failed_share=0.5), store)
    assert (result.rows_in, result.rows_out, result.rejects) == (2, 1, {"unreadable_video": 1})
    assert result.metrics["accuracy"] == 1.0
    with pytest.raises(UserError, match="1 questions got no answer where 0 may"):
        run_stage(inputs_of(tmp_path, host.spec()), EvaluateConfig(max_failed_share=0.4), store)


@pytest.mark.usefixtures("small_shards")
def test_an_engine_that_fails_leaves_finished_shards(
    host: EngineHost, material: Path, store: LocalStore
) -> None:
    host.answer = lambda body: 400 if len(host.seen) > 4 else perceive(body)
    with pytest.raises(UserError, match="no answer"):
        run_stage(inputs_of(material, host.spec(max_in_flight=1)), CONFIG, store)
    before = len(host.seen)
    host.answer = perceive
    result = run_stage(inputs_of(material, host.spec()), CONFIG, store)
    assert result.computed_shards == 1
    assert len(host.seen) - before == 2
    assert result.rows_out == 6


KILLED_CHILD = """
import sys
from pathlib import Path
from share4video.config import EngineSpec, EvaluateConfig
from share4video.stages import evaluate
from share4video.store import LocalStore

root, questions, clips, spec = sys.argv[1:]
evaluate.QUESTIONS_PER_SHARD = 2
inputs = evaluate.EvaluateInputs(EngineSpec.model_validate_json(spec), questions, clips)
evaluate.run_stage(inputs, EvaluateConfig(), LocalStore(Path(root)))
"""


@pytest.mark.usefixtures("small_shards")
def test_a_killed_run_goes_on_and_publishes_the_same_bytes(
    host: EngineHost, material: Path, store: LocalStore, tmp_path: Path
) -> None:
    calm = LocalStore(tmp_path / "calm")
    expected = run_stage(inputs_of(material, host.spec()), CONFIG, calm)

    host.seen.clear()
    never = threading.Event()

    def block(body: Body) -> str:
        if len(host.seen) > 4:  # the third shard's first question
            never.wait(60)
        return perceive(body)

    host.answer = block
    arguments = [str(store.root), str(material / "questions"), str(material / "clips")]
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED_CHILD, *arguments, host.spec(max_in_flight=1).model_dump_json()]
    )
    deadline = time.monotonic() + 60
    while len(host.seen) < 5:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.kill()
    child.wait()
    never.set()

    host.seen.clear()
    host.answer = perceive
    result = run_stage(inputs_of(material, host.spec()), CONFIG, store)
    assert len(host.seen) == 2
    assert result.computed_shards == 1
    assert result.ref == expected.ref
    for key in calm.list(expected.ref.prefix):
        assert store.get(key) == calm.get(key)


def test_a_video_that_cannot_be_read_is_named(host: EngineHost, tmp_path: Path, store: LocalStore) -> None:
    frame = tmp_path / "clips" / "film" / "00001.jpg"
    frame.mkdir(parents=True)
    write_questions(tmp_path / "questions", {"colour": [record("film", "What colour?", COLOURS, "red")]})
    with pytest.raises(UserError, match="cannot read a video that is asked about: Is a directory") as caught:
        run_stage(inputs_of(tmp_path, host.spec()), CONFIG, store)
    assert caught.value.where == str(frame)
    assert host.seen == []


def test_missing_things_are_named(host: EngineHost, material: Path, store: LocalStore) -> None:
    gone = EvaluateInputs(host.spec(), str(material / "nowhere"), str(material / "clips"))
    with pytest.raises(UserError, match="questions"):
        run_stage(gone, CONFIG, store)
    gone = EvaluateInputs(host.spec(), str(material / "questions"), str(material / "nowhere"))
    with pytest.raises(UserError, match="clips folder is missing"):
        run_stage(gone, CONFIG, store)
    gone = inputs_of(material, EngineSpec(model_path=str(material / "no-model")))
    with pytest.raises(UserError, match="no such model folder"):
        run_stage(gone, CONFIG, store)
    assert list(store.list("evaluate")) == []


# ------------------------------------------------------------------ models


def publish_checkpoint(store: Store, card: dict[str, str] | None = None) -> StageRef:
    """Publish what the train stage would: a checkpoint without a single weight."""
    output = ShardSet(store, "train", "1", inputs=["mixture"], config=TrainConfig())
    header = b"{}"
    output.attach("checkpoint/config.json", json.dumps({"model_type": "tiny", **(card or {})}).encode())
    output.attach("checkpoint/model.safetensors", len(header).to_bytes(8, "little") + header)
    output.commit(0, {}, {"rows_in": 0, "rows_out": 0})
    return output.publish(1).ref


@pytest.fixture
def model_server(host: EngineHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineHost:
    monkeypatch.setenv("SHARE4VIDEO_MODEL_SERVER", host.share_as_model_server(tmp_path / "server"))
    monkeypatch.setenv("SHARE4VIDEO_WORK", str(tmp_path / "work"))
    return host


def test_a_published_checkpoint_is_served_from_any_store(
    model_server: EngineHost, material: Path, any_store: Store
) -> None:
    checkpoint = publish_checkpoint(any_store)
    result = run_stage(inputs_of(material, checkpoint), CONFIG, any_store)
    assert read_results(any_store, result.ref).model == str(checkpoint)
    assert {body["model"] for body in model_server.seen} == {model_server.seen[0]["model"]}
    assert model_server.seen[0]["model"].startswith("checkpoint-")
    assert run_stage(inputs_of(material, checkpoint), CONFIG, any_store).unchanged


@pytest.mark.usefixtures("model_server")
def test_a_damaged_checkpoint_is_not_served(material: Path, store: LocalStore) -> None:
    checkpoint = publish_checkpoint(store)
    store.put(f"{checkpoint.prefix}/checkpoint/config.json", b"{}")
    with pytest.raises(UserError, match="damaged"):
        run_stage(inputs_of(material, checkpoint), CONFIG, store)


def test_a_nano_model_refuses_clips_it_does_not_know(
    model_server: EngineHost, material: Path, store: LocalStore
) -> None:
    checkpoint = publish_checkpoint(store, {"domain": "synthetic"})
    with pytest.raises(UserError, match="knows only the synthetic clips"):
        run_stage(inputs_of(material, checkpoint), CONFIG, store)
    assert model_server.seen == []


def test_models_are_named_as_people_write_them(store: LocalStore) -> None:
    assert parse_model("builtin:nano-base", store) == EngineSpec(model_path="builtin:nano-base")
    assert parse_model("some/folder", store) == EngineSpec(model_path="some/folder")
    assert parse_model("train/abc@def", store) == StageRef("train", "abc", "def")
    with pytest.raises(UserError, match="no model is registered yet"):
        parse_model("models:/chat@champion", store)
