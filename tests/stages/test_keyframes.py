from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from share4video.config import KeyframeConfig
from share4video.curation.encoders import DESCRIPTOR, FRAMES_PER_BATCH, Rgb, Vectors
from share4video.curation.samples import most_samples, sample
from share4video.dataset.shards import StageRef, read_table
from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.media.probe import content_hash
from share4video.stages.clip_frames import ClipFrames, clip_frames
from share4video.stages.keyframes import KeyframesInputs, finish, plan, run_shard, run_stage
from share4video.stages.task import summary_markdown
from share4video.store import LocalStore, Store
from share4video.synthetic.world import Body, Clip, Event, Motion
from tests.curation.films import clip_row, publish_clips, rendered, write_film

CONFIG = KeyframeConfig(shards=3)

# A square that waits, moves from 3 s to 6 s, and turns green at 9.5 s.
STORY = Clip(
    1,
    13.0,
    "grey",
    (Body("square", "red", "small", 0.2, 0.5),),
    (Motion(0, "right", 0.1, 3.0, 6.0),),
    (Event("turns_colour", 9.5, 9.5, 0, "green"),),
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for number in range(4):
        clip = replace(STORY, seed=number, duration_s=13.0 - number)
        write_film(folder / f"film-{number}.mp4", rendered(clip, fps=4), fps=4)
    return folder


@pytest.fixture(scope="module")
def rows(source: Path) -> list[dict[str, Any]]:
    return [clip_row(path, source) for path in sorted(source.glob("film-*.mp4"))]


def inputs_of(store: Store, rows: list[dict[str, Any]], source: Path) -> KeyframesInputs:
    return KeyframesInputs(publish_clips(store, rows), str(source))


def published_files(store: LocalStore, ref: StageRef) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list(ref.prefix)}


def test_key_frames_are_where_something_happened(
    store: LocalStore, source: Path, rows: list[dict[str, Any]]
) -> None:
    seen: list[tuple[int, int]] = []
    result = run_stage(
        inputs_of(store, rows, source),
        CONFIG,
        store,
        progress=lambda _label, done, total: seen.append((done, total)),
    )
    assert (result.rows_in, result.rows_out, result.rejects) == (4, 4, {})
    assert (result.computed_shards, result.total_shards) == (3, 3)
    table = read_table(store, result.ref, "keyframes").to_pylist()
    story = [row for row in table if row["clip_id"] == rows[0]["clip_id"]]
    assert [row["timestamp_s"] for row in story] == [0.0, 4.0, 6.0, 10.0, 12.0]
    assert [row["index"] for row in story] == list(range(5))
    assert story[0]["similarity"] is None and all(-1 <= row["similarity"] <= 1 for row in story[1:])
    assert story[4]["similarity"] > 0.97  # nothing happened: it is there because it is the last
    picture = np.asarray(Image.open(io.BytesIO(story[3]["jpeg"])))
    assert picture.shape == (256, 256, 3)
    assert picture[128, 128, 1] > picture[128, 128, 0]  # green by now
    assert result.metrics == {"key_frames": len(table)}
    assert sum(done == total for done, total in seen) == 3


def test_a_second_run_changes_nothing(store: LocalStore, source: Path, rows: list[dict[str, Any]]) -> None:
    inputs = inputs_of(store, rows, source)
    first = run_stage(inputs, CONFIG, store)
    again = run_stage(inputs, CONFIG, store)
    assert again.unchanged and again == replace(first, computed_shards=0)
    assert finish(inputs, CONFIG, store) == again


def test_rows_do_not_depend_on_the_shards_or_the_order(
    store: LocalStore, source: Path, rows: list[dict[str, Any]]
) -> None:
    tables = []
    for listed, shards in ((rows, 1), (rows[::-1], 2), (rows, 9)):
        config = CONFIG.model_copy(update={"shards": shards})
        result = run_stage(inputs_of(store, listed, source), config, store)
        tables.append(
            read_table(store, result.ref, "keyframes").sort_by(
                [("clip_id", "ascending"), ("index", "ascending")]
            )
        )
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])


@dataclass(frozen=True)
class Watched:
    """The descriptor, with a note of how many frames came in each call."""

    calls: list[int]
    threshold = DESCRIPTOR.threshold
    name = DESCRIPTOR.name
    revision = DESCRIPTOR.revision
    duplicate_threshold = DESCRIPTOR.duplicate_threshold

    def encode(self, frames: Sequence[Rgb]) -> Vectors:
        self.calls.append(len(frames))
        return DESCRIPTOR.encode(frames)


@pytest.mark.parametrize("decoders", [1, 2])
@pytest.mark.parametrize("held", [1, 9, 256])
def test_frames_are_encoded_once_in_batches_that_span_clips(
    source: Path, rows: list[dict[str, Any]], decoders: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("share4video.stages.clip_frames.FRAMES_HELD", held)
    missing = {**rows[0], "row_id": "away", "source_uri": "../away.mp4"}
    listed = [rows[0], missing, *rows[1:], *rows]
    encoder = Watched([])
    found = clip_frames(
        listed,
        str(source),
        lambda path, clip: sample(path, clip["start_s"], clip["end_s"], CONFIG),
        encoder,
        most_frames=lambda clip: most_samples(clip["end_s"] - clip["start_s"], CONFIG),
        decoders=decoders,
    )
    frames = 0
    for expected, (row, clip) in zip(listed, found, strict=True):
        assert row is expected
        if row is missing:
            assert isinstance(clip, MediaError)
            continue
        assert isinstance(clip, ClipFrames)
        alone = DESCRIPTOR.encode(sample(source / row["source_uri"], 0, row["end_s"], CONFIG).pictures)
        np.testing.assert_array_equal(clip.encodings, alone)
        frames += len(alone)
    assert sum(encoder.calls) == frames and max(encoder.calls) <= FRAMES_PER_BATCH
    if held == 256:
        full = frames // FRAMES_PER_BATCH
        assert encoder.calls[:full] == [FRAMES_PER_BATCH] * full


def test_uniform_mode_keeps_every_sample(store: LocalStore, source: Path, rows: list[dict[str, Any]]) -> None:
    config = KeyframeConfig(mode="uniform", interval_s=1, encoder="needed by nobody")
    result = run_stage(inputs_of(store, rows, source), config, store)
    table = read_table(store, result.ref, "keyframes").to_pylist()
    for number, row in enumerate(rows):
        own = [frame for frame in table if frame["clip_id"] == row["clip_id"]]
        assert [frame["timestamp_s"] for frame in own] == list(range(13 - number))
        assert [frame["index"] for frame in own] == list(range(13 - number))
        assert all(frame["similarity"] is None for frame in own)


def test_reference_mode_rejects_short_clips(
    store: LocalStore, source: Path, rows: list[dict[str, Any]]
) -> None:
    config = KeyframeConfig(mode="reference")
    result = run_stage(inputs_of(store, rows, source), config, store)
    assert (result.rows_in, result.rows_out, result.rejects) == (4, 3, {"too_short": 1})
    (reject,) = read_table(store, result.ref, "rejects").to_pylist()
    assert (reject["row_id"], reject["measured"], reject["bound"]) == (rows[3]["row_id"], 40, 41)
    table = read_table(store, result.ref, "keyframes").to_pylist()
    story = [row["timestamp_s"] for row in table if row["clip_id"] == rows[0]["clip_id"]]
    assert story == [0.0, 4.0, 6.0, 10.0, 12.75]  # the last frame, not the last sample


def test_clips_that_cannot_be_decoded_are_rejects(
    store: LocalStore, source: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    for row in rows:
        (tmp_path / row["source_uri"]).write_bytes((source / row["source_uri"]).read_bytes())
    half = tmp_path / rows[1]["source_uri"]
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    cut = {**rows[1], "content_hash": content_hash(half)}
    escaping = {**rows[3], "source_uri": f"../{tmp_path.name}/film-0.mp4"}
    result = run_stage(inputs_of(store, [rows[0], cut, escaping], tmp_path), CONFIG, store)
    assert (result.rows_in, result.rows_out, sum(result.rejects.values())) == (3, 1, 2)
    rejects = {row["row_id"]: row for row in read_table(store, result.ref, "rejects").to_pylist()}
    assert set(rejects) == {rows[1]["row_id"], rows[3]["row_id"]}
    assert rejects[rows[1]["row_id"]]["reason"] == "truncated"
    assert all(
        row["stage"] == "keyframes" and str(tmp_path) not in row["sentence"] for row in rejects.values()
    )
    strict = CONFIG.model_copy(update={"max_failed_share": 0.2})
    for _ in range(2):  # also when it is published
        with pytest.raises(UserError, match="1 of 3 rows failed, over the 20% allowed"):
            run_stage(inputs_of(store, [rows[0], cut, escaping], tmp_path), strict, store)
    lenient = CONFIG.model_copy(update={"max_failed_share": 0.9})
    assert run_stage(inputs_of(store, [rows[0], cut, escaping], tmp_path), lenient, store).unchanged
    with pytest.raises(UserError, match="none of 1 rows is left, 1 of them rejected as truncated"):
        run_stage(inputs_of(store, [cut], tmp_path), CONFIG, store)
    kept = set(read_table(store, result.ref, "keyframes")["clip_id"].to_pylist())
    assert kept == {rows[0]["clip_id"]}


def test_another_source_publishes_nothing_and_the_right_one_still_can(
    store: LocalStore, source: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        shutil.copy(source / other["source_uri"], tmp_path / row["source_uri"])
    for wrong in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"does not hold clip \w+ as it was probed"):
            run_stage(inputs_of(store, rows, wrong), CONFIG, store)
        assert not list(store.list("keyframes"))
    shutil.copy(source / rows[0]["source_uri"], tmp_path / rows[0]["source_uri"])
    assert run_stage(inputs_of(store, rows[:1], tmp_path), CONFIG, store).rows_out == 1
    assert run_stage(inputs_of(store, rows, source), CONFIG, store).rows_out == 4


def test_a_span_is_sampled_from_its_own_start(
    store: LocalStore, source: Path, rows: list[dict[str, Any]]
) -> None:
    span = {**rows[0], "start_s": 1.0, "end_s": 8.0, "duration_s": 7.0}
    result = run_stage(inputs_of(store, [span], source), CONFIG, store)
    times_s = read_table(store, result.ref, "keyframes")["timestamp_s"].to_pylist()
    assert times_s == [1.0, 5.0, 7.0]  # looked at 1, 3, 5 and 7 s; the move lasts from 3 to 6 s


def test_no_clips_still_make_one_shard(store: LocalStore, source: Path) -> None:
    inputs = inputs_of(store, [], source)
    assert plan(inputs, CONFIG, store) == [0]
    assert run_stage(inputs, CONFIG, store).rows_in == 0


def test_moved_weights_change_no_key(store: LocalStore, source: Path, tmp_path: Path) -> None:
    """Without clips the weights are hashed, not loaded."""
    refs = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "model.safetensors").write_bytes(b"weights")
        name = f"open_clip:ViT-B-32-quickgelu/{tmp_path}/{place}/model.safetensors"
        refs.append(run_stage(inputs_of(store, [], source), KeyframeConfig(encoder=name), store).ref)
    assert refs[0] == refs[1]
    assert str(tmp_path).encode() not in store.get(f"{refs[0].prefix}/manifest.json")


def test_unknown_encoder(store: LocalStore, source: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError, match="unknown frame encoder"):
        run_stage(inputs_of(store, rows, source), KeyframeConfig(encoder="magic"), store)


def test_shards_run_anywhere_and_once(store: LocalStore, source: Path, rows: list[dict[str, Any]]) -> None:
    inputs = inputs_of(store, rows, source)
    shards = plan(inputs, CONFIG, store)
    assert shards == [0, 1, 2]
    with pytest.raises(RuntimeError, match="not committed"):
        finish(inputs, CONFIG, store)
    assert [run_shard(inputs, CONFIG, store, shard) for shard in (2, 0, 1, 0)] == [True, True, True, False]
    result = finish(inputs, CONFIG, store)
    assert (result.rows_out, result.computed_shards, result.unchanged) == (4, None, False)
    assert "(shards computed or reused: 3)" in summary_markdown(result, {})
    assert "(unchanged)" in summary_markdown(finish(inputs, CONFIG, store), {})


KILLED_AFTER_ONE_SHARD = """
import os, signal, sys
from share4video.config import KeyframeConfig
from share4video.dataset.shards import StageRef
from share4video.stages.keyframes import KeyframesInputs, run_stage
from share4video.store import Store

root, clips, source = sys.argv[1:]
calls = []

def progress(label, done, total):
    calls.append(done)
    if calls.count(1) == 2:  # the second shard has begun
        os.kill(os.getpid(), signal.SIGKILL)

inputs = KeyframesInputs(StageRef.parse(clips), source)
run_stage(inputs, KeyframeConfig(shards=3), Store.open(root), progress=progress)
"""


def test_a_killed_run_goes_on_and_ends_the_same(
    store: LocalStore, source: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    inputs = inputs_of(store, rows, source)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER_ONE_SHARD, str(store.root), str(inputs.clips), inputs.source],
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(RuntimeError, match=r"shards \[1, 2\] are not committed"):
        finish(inputs, CONFIG, store)
    result = run_stage(inputs, CONFIG, store)
    assert (result.computed_shards, result.total_shards) == (2, 3)

    undisturbed = LocalStore(tmp_path / "undisturbed")
    whole = run_stage(inputs_of(undisturbed, rows, source), CONFIG, undisturbed)
    assert whole.ref == result.ref
    assert published_files(store, result.ref) == published_files(undisturbed, whole.ref)
