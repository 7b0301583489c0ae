"""A clip that is taken down is in no byte of the store any more, and does not come back."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from share4video.captioning.client import Completion
from share4video.captioning.journal import open_journal
from share4video.cli.main import app
from share4video.config import DatasetConfig, MixtureConfig, RunConfig, TrainConfig
from share4video.dataset.manifest import Manifest, StageRef, load_manifest
from share4video.dataset.outputs import stored_manifests
from share4video.dataset.shards import ShardSet, read_file, read_table, table_from_rows
from share4video.dataset.tombstones import Tombstones, taken_down
from share4video.errors import UserError
from share4video.events import StageEvent
from share4video.stages import dataset, mixture
from share4video.stages.chain import Chain
from share4video.stages.clip_frames import reject_row
from share4video.stages.contract import StageResult
from share4video.stages.takedown import take_down
from share4video.store import LocalStore, Store
from tests.engines import FakeEngine
from tests.pipelines.material import write_config, write_source
from tests.stages.caption_material import clip_row
from tests.stages.captioned import Captioned, publish_captioned

COLOURS = ["red", "green", "white"]


def read_anywhere(data: bytes, key: str) -> Iterator[Any]:
    """Yield every value a file of the store holds, those inside Parquet too."""
    yield data
    if key.endswith(".parquet"):
        yield from _leaves(pq.read_table(pa.BufferReader(data)).to_pylist())


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    elif value is not None:
        yield value if isinstance(value, bytes) else str(value).encode()


def places_of(store: Store, needles: list[bytes]) -> list[str]:
    """Return the keys of the store, without its list of takedowns, that hold one of ``needles``."""
    found = []
    for key in store.list(""):
        if not key.startswith(("takedowns/", "locks/")):
            values = read_anywhere(store.get(key), key)
            if any(needle in value for value in values for needle in needles):
                found.append(key)
    return found


def publish_all(store: Store, folder: Path, **config: Any) -> tuple[Captioned, StageRef, StageRef, StageRef]:
    """Publish three clips up to a trained model."""
    captioned = publish_captioned(store, folder, COLOURS)
    inputs = dataset.DatasetInputs(captioned.clips, captioned.brief, captioned.keyframes, captioned.caption)
    published = dataset.run_stage(inputs, DatasetConfig(), store).ref
    mixed = mixture.run_stage(
        mixture.MixtureInputs(published, str(captioned.source)),
        MixtureConfig(question_writer="synthetic", **config),
        store,
    ).ref
    trained = ShardSet(store, "train", "1", inputs=[mixed.content_hash, "base"], config=TrainConfig())
    trained.attach("checkpoint/model.safetensors", b"weights")
    trained.commit(0, {}, {"rows_in": 1, "rows_out": 1})
    model = trained.publish(1).ref
    released = ShardSet(
        store, "release", "2", inputs=[model.content_hash], config=TrainConfig(), identity={"name": "chat"}
    )
    released.commit(0, {}, {"rows_in": 1, "rows_out": 1})
    released.publish(1)
    return captioned, published, mixed, model


def by_stage(store: Store) -> dict[str, Manifest]:
    return {manifest.stage: manifest for manifest in stored_manifests(store)}


def test_nothing_of_the_clip_is_left(any_store: Store, tmp_path: Path, work_root: Path) -> None:
    store = any_store
    captioned, _, mixed, model = publish_all(store, tmp_path)
    (image,) = {
        row["image"] for row in read_table(store, mixed, "sft").to_pylist() if row["clip_id"] == "clip-red"
    }
    needles = [b"clip-red", b"red square", Path(image).name.encode(), read_file(store, mixed, image)]
    assert {key.partition("/")[0] for key in places_of(store, needles)} == {
        *("dedup", "brief", "keyframes", "caption", "dataset", "mixture")
    }
    done = take_down(store, ["clip-red"], "the author asked")
    assert places_of(store, needles) == []
    assert done.models == [(str(model), "chat")]
    assert load_manifest(store, model).ref == model
    made = by_stage(store)
    assert {old for old, _ in done.rewritten} >= {str(captioned.clips), str(mixed)}
    assert {new for _, new in done.rewritten} <= {str(manifest.ref) for manifest in made.values()}
    for stage in ("dedup", "dataset", "mixture"):
        kept = {"mixture": "sft"}.get(stage, "clips")
        found = read_table(store, made[stage].ref, kept)["clip_id"].to_pylist()
        assert set(found) == {"clip-green", "clip-white"}
    for stage in ("dataset", "mixture"):
        result = StageResult.from_manifest(made[stage], computed_shards=0, total_shards=1)
        assert (result.rows_in, result.rows_out) == (2, 2)
    card = read_file(store, made["dataset"].ref, dataset.CARD_NAME).decode()
    assert "2 clips" in card


def test_later_runs_find_what_was_rewritten(store: LocalStore, tmp_path: Path, work_root: Path) -> None:
    captioned, published, mixed, _ = publish_all(store, tmp_path)
    take_down(store, ["clip-red"], "asked")
    made = by_stage(store)
    inputs = dataset.DatasetInputs(*(made[s].ref for s in ("dedup", "brief", "keyframes", "caption")))
    again = dataset.run_stage(inputs, DatasetConfig(), store)
    assert again.unchanged and again.ref == made["dataset"].ref
    mixture_inputs = mixture.MixtureInputs(again.ref, str(captioned.source))
    assert mixture.run_stage(mixture_inputs, MixtureConfig(question_writer="synthetic"), store).unchanged
    with pytest.raises(UserError, match=f"use {again.ref}"):
        read_table(store, published, "clips")
    with pytest.raises(UserError, match="clips were taken down"):
        load_manifest(store, mixed)
    same = publish_captioned(store, tmp_path, COLOURS)  # the same recipe finds what it became
    assert same.clips == made["dedup"].ref


def test_taking_down_one_after_another(store: LocalStore, tmp_path: Path, work_root: Path) -> None:
    _, published, _, model = publish_all(store, tmp_path)
    take_down(store, ["clip-red"], "asked")
    second = take_down(store, ["clip-green"], "asked, too")
    assert second.models == [(str(model), "chat")]  # it saw the version before the first
    assert places_of(store, [b"clip-red", b"clip-green"]) == []
    with pytest.raises(UserError, match=str(by_stage(store)["dataset"].ref)):
        load_manifest(store, published)
    assert {stone.reason for stone in Tombstones.of(store).by_id.values()} == {"asked", "asked, too"}
    assert take_down(store, ["clip-green"], "again").rewritten == []


def test_a_dry_run_changes_nothing(store: LocalStore, tmp_path: Path, work_root: Path) -> None:
    publish_all(store, tmp_path)
    before = {key: store.get(key) for key in store.list("")}
    done = CliRunner().invoke(
        app, ["dataset", "takedown", "clip-red", "--dry-run", "--store", str(store.root)]
    )
    assert done.exit_code == 0, done.output
    assert "would take down  clip-red" in done.stdout
    assert done.stdout.count("would rewrite") == 6
    assert "registered as chat" in done.stdout
    assert {key: store.get(key) for key in store.list("")} == before
    unknown = CliRunner().invoke(app, ["dataset", "takedown", "clip-blue", "--store", str(store.root)])
    assert unknown.exit_code == 2
    assert "the store holds nothing of this clip (clip-blue)" in unknown.output
    assert not taken_down(store)


KILLED = """
import os, signal, sys
from share4video.store import LocalStore
from share4video.stages.takedown import take_down
left = int(sys.argv[2])
class Failing(LocalStore):
    def _step(self):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    def put(self, key, data):
        self._step(); super().put(key, data)
    def put_if_absent(self, key, data):
        self._step(); return super().put_if_absent(key, data)
    def delete(self, key):
        self._step(); super().delete(key)
take_down(Failing(__import__('pathlib').Path(sys.argv[1])), ["clip-red"], "asked")
"""


@pytest.mark.parametrize("step", [2, 3, 9, 17, 18, 25, 40, 55, 67])
def test_killed_at_any_moment_and_run_again_it_completes(
    store: LocalStore, tmp_path: Path, work_root: Path, step: int
) -> None:
    publish_all(store, tmp_path)
    whole = LocalStore(tmp_path / "whole")
    shutil.copytree(store.root, whole.root, dirs_exist_ok=True)
    take_down(whole, ["clip-red"], "asked")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(store.root), str(step)], check=False)
    assert killed.returncode == -signal.SIGKILL
    take_down(store, ["clip-red"], "asked")

    def kept(of: LocalStore) -> dict[str, bytes]:
        return {key: of.get(key) for key in of.list("") if not key.startswith("locks/")}

    assert kept(store) == kept(whole)


def test_unfinished_outputs_and_journals_are_cleared(
    store: LocalStore, tmp_path: Path, work_root: Path
) -> None:
    captioned, *_ = publish_all(store, tmp_path)
    rows = read_table(store, captioned.caption, "captions").to_pylist()
    half = ShardSet(store, "caption", "1", inputs=["another"], config=TrainConfig())
    half.commit(0, {"captions": table_from_rows("captions", rows)})
    clean = ShardSet(store, "caption", "1", inputs=["clean"], config=TrainConfig())
    clean.commit(0, {"captions": table_from_rows("captions", rows[1:])})
    with open_journal("somewhere") as journal:
        for row in rows:
            journal.record(row["clip_id"], "1", Completion(row["caption"], "stop", 1, 1))
    done = take_down(store, ["clip-red"], "asked")
    assert (done.deleted, done.journal_lines) == ([half.prefix], 1)
    assert not half.committed(0)
    assert clean.committed(0)
    (journal_file,) = (work_root / "journals").glob("*.jsonl")
    assert [
        json.loads(line.partition(" ")[2])["conversation"] for line in journal_file.read_text().splitlines()
    ] == [*("clip-green", "clip-white")]


def test_a_stage_that_was_at_work_cannot_bring_it_back(
    store: LocalStore, tmp_path: Path, work_root: Path
) -> None:
    captioned, *_ = publish_all(store, tmp_path)
    late = ShardSet(store, "caption", "1", inputs=["late"], config=TrainConfig())
    rows = read_table(store, captioned.caption, "captions").to_pylist()
    take_down(store, ["clip-red"], "asked")
    late.attach("images/red.jpg", b"red square")
    with pytest.raises(UserError, match="taken down while this stage worked on it"):
        late.commit(0, {"captions": table_from_rows("captions", rows)})
    assert places_of(store, [b"red square"]) == []


def test_captions_given_to_other_clips_go_as_well(store: LocalStore, tmp_path: Path, work_root: Path) -> None:
    _, _, mixed, _ = publish_all(store, tmp_path, shuffle_captions=True)
    done = take_down(store, ["clip-red"], "asked")
    assert done.deleted == [str(mixed)]
    assert places_of(store, [b"red square"]) == []
    with pytest.raises(UserError, match="run the mixture stage again"):
        load_manifest(store, mixed)


def test_the_same_bytes_do_not_come_back_and_no_call_is_made_for_the_rest(
    fake_engine: FakeEngine, tmp_path: Path, work_root: Path, local_copies: Path
) -> None:
    source = write_source(tmp_path / "videos")
    config = RunConfig.model_validate(json.loads(write_config(tmp_path / "c.json", fake_engine).read_text()))
    store, events = LocalStore(tmp_path / "store"), list[StageEvent]()
    chain = Chain(config, store, events.append)
    curated = chain.curate(str(source))
    first = chain.caption(curated)
    gone, stays = read_table(store, first.dataset, "clips").to_pylist()
    said = read_table(store, first.dataset, "captions").to_pylist()
    theirs = {row["caption"] for row in said if row["clip_id"] == stays["clip_id"]}
    own = [row["caption"].encode() for row in said if row["caption"] not in theirs]
    frames = read_table(store, curated.keyframes, "keyframes").to_pylist()
    jpegs = [row["jpeg"] for row in frames if row["clip_id"] == gone["clip_id"]]
    needles = [gone["clip_id"].encode(), *own, *jpegs]
    assert own and len(places_of(store, needles)) > 6
    done = take_down(store, [gone["clip_id"]], "asked")
    assert places_of(store, needles) == []
    fake_engine.settings()
    events.clear()
    again = chain.caption(chain.curate(str(source)))
    assert fake_engine.calls() == []
    assert str(again.dataset) in {new for _, new in done.rewritten}
    finished = {event.stage: event for event in events if event.kind == "finished"}
    assert all(event.reused for event in finished.values()), [e.stage for e in events if not e.reused]
    assert finished["probe"].rejects["taken_down"] == 1  # its copy was and stays a duplicate
    assert read_table(store, again.dataset, "clips")["clip_id"].to_pylist() == [stays["clip_id"]]
    # another source, where the same bytes have another name
    other = tmp_path / "other"
    other.mkdir()
    for number, name in enumerate(("clip-1.mp4", "clip-2.mp4")):
        shutil.copy(source / name, other / f"new-{number}.mp4")
    events.clear()
    chain.curate(str(other))
    (scanned,) = (e for e in events if e.kind == "finished" and e.stage == "probe")
    assert scanned.rejects == {"taken_down": 1}


def test_scenes_that_share_pictures_go_and_the_others_stay(store: LocalStore, work_root: Path) -> None:
    def clip(name: str, start_s: float, end_s: float, content: str = "film") -> dict[str, Any]:
        row = {**clip_row(1), "clip_id": name, "row_id": f"row-{content}", "content_hash": content}
        row["scene"] = {"one": 0, "two": 1, "three": 2}.get(name)
        return {**row, "start_s": start_s, "end_s": end_s, "duration_s": end_s - start_s}

    def publish(key: str, clips: list[dict[str, Any]], rejects: list[dict[str, Any]]) -> None:
        output = ShardSet(store, "dedup", "1", inputs=[key], config=DatasetConfig())
        tables = {"clips": table_from_rows("clips", clips), "rejects": table_from_rows("rejects", rejects)}
        reasons = {f"reject:{reason}": n for reason, n in Counter(r["reason"] for r in rejects).items()}
        counts = {"rows_in": len(clips) + len(rejects), "rows_out": len(clips), **reasons}
        output.commit(0, tables, counts)
        output.publish(1)

    first, second, third = clip("one", 0, 5), clip("two", 5, 9), clip("three", 9, 12)
    near = reject_row(second, "dedup", "near_duplicate", "a near-duplicate of clip one", 0.9, 0.8)
    publish("scenes", [first, third, clip("other", 0, 5, "another film")], [near])
    publish("whole", [clip("all", 0, 12)], [reject_row(third, "dedup", "near_duplicate", "of clip all")])
    publish("again", [second], [reject_row(first, "dedup", "near_duplicate", "a near-duplicate of clip two")])
    assert take_down(store, ["one"], "asked").clips == ["all", "one"]
    left = {}
    for manifest in stored_manifests(store):
        result = StageResult.from_manifest(manifest, computed_shards=0, total_shards=1)
        rejects = read_table(store, manifest.ref, "rejects")["sentence"].to_pylist()
        left[tuple(read_table(store, manifest.ref, "clips")["clip_id"].to_pylist())] = rejects
        assert result.rows_out + len(rejects) == result.rows_in
    scene = "in the scene from 5.00 to 9.00 s"
    assert left == {
        ("three", "other"): [f"a near-duplicate of clip (taken down), {scene}"],
        (): ["of clip (taken down), in the scene from 9.00 to 12.00 s"],
        ("two",): [],
    }
    stones = Tombstones.of(store)
    assert stones.covers("film", 4, 6) and stones.covers("film", None, None)
    assert not stones.covers("film", 5, 9) and not stones.covers("another film", 0, 5)


def test_what_never_held_it_is_found_by_the_new_names_of_its_inputs(
    store: LocalStore, tmp_path: Path, work_root: Path
) -> None:
    made = publish_captioned(store, tmp_path, ["red", "green"])
    rows = read_table(store, made.clips, "clips").to_pylist()
    blue = {**clip_row(9), "clip_id": "clip-blue"}
    probed = ShardSet(store, "probe", "2", inputs=["rows"], config=DatasetConfig())
    empty = table_from_rows("rejects", [])
    probed.commit(0, {"clips": table_from_rows("clips", [*rows, blue]), "rejects": empty})
    near = reject_row(blue, "dedup", "near_duplicate", "a near-duplicate of clip clip-red", 0.9, 0.8)
    deduped = ShardSet(store, "dedup", "2", inputs=[probed.publish(1).content_hash], config=DatasetConfig())
    deduped.commit(
        0, {"clips": table_from_rows("clips", rows), "rejects": table_from_rows("rejects", [near])}
    )
    inputs = dataset.DatasetInputs(deduped.publish(1).ref, made.brief, made.keyframes, made.caption)
    published = dataset.run_stage(inputs, DatasetConfig(), store).ref
    became = dict(take_down(store, ["clip-blue"], "asked").rewritten)
    assert str(published) not in became
    clips = StageRef.parse(became[str(inputs.clips)])
    again = dataset.run_stage(
        dataset.DatasetInputs(clips, made.brief, made.keyframes, made.caption), DatasetConfig(), store
    )
    assert again.unchanged and again.ref == published
    take_down(store, ["clip-red"], "asked")
    new = by_stage(store)["dataset"].ref
    with pytest.raises(UserError, match=str(new)):
        load_manifest(store, published)
