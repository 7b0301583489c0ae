"""A dataset grows: what is published stays byte for byte, and only new clips are captioned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from share4video.cli.main import app
from share4video.config import CaptionConfig, DatasetConfig, RunConfig
from share4video.dataset.differences import differences
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.outputs import curated_clips, published_clips
from share4video.dataset.shards import read_file, read_table
from share4video.errors import UserError
from share4video.stages import caption, dataset
from share4video.stages.chain import Chain
from share4video.stages.takedown import take_down
from share4video.store import LocalStore
from share4video.synthetic.clips import write_clip
from share4video.synthetic.world import sample_clip
from tests.engines import FakeEngine
from tests.pipelines.material import write_config
from tests.stages.caption_material import inputs_of
from tests.stages.captioned import publish_captioned


def published_versions(store: LocalStore, folder: Path) -> tuple[StageRef, StageRef]:
    """Publish red and green, then white added to them."""
    refs: list[StageRef] = []
    for colours in (["red", "green"], ["white"]):
        made = publish_captioned(store, folder, colours)
        earlier = refs[0] if refs else None
        inputs = dataset.DatasetInputs(made.clips, made.brief, made.keyframes, made.caption, earlier)
        refs.append(dataset.run_stage(inputs, DatasetConfig(), store).ref)
    return refs[0], refs[1]


def test_the_earlier_rows_stay_byte_for_byte(store: LocalStore, tmp_path: Path) -> None:
    first, second = published_versions(store, tmp_path)
    old, new = load_manifest(store, first), load_manifest(store, second)
    assert set(old.parts) < set(new.parts)  # by table, shard and hash
    for part in old.parts:
        assert store.get(f"{old.ref.prefix}/{part.path}") == store.get(f"{new.ref.prefix}/{part.path}")
    lines = read_file(store, second, dataset.EXPORT_NAME)
    assert lines.startswith(read_file(store, first, dataset.EXPORT_NAME)) and lines.count(b"\n") == 3
    clips = read_table(store, second, "clips")["clip_id"].to_pylist()
    assert clips == ["clip-red", "clip-green", "clip-white"]
    assert (new.counts["rows_in"], new.counts["rows_out"]) == (3, 3)
    card = read_file(store, second, dataset.CARD_NAME).decode()
    assert f"| {first} | 2 |\n| this version | 1 |" in card
    assert "## Versions" not in read_file(store, first, dataset.CARD_NAME).decode()


def test_a_clip_that_is_there_is_not_added_again(store: LocalStore, tmp_path: Path) -> None:
    first, _ = published_versions(store, tmp_path)
    made = publish_captioned(store, tmp_path, ["green", "blue"])
    inputs = dataset.DatasetInputs(made.clips, made.brief, made.keyframes, made.caption, first)
    result = dataset.run_stage(inputs, DatasetConfig(), store)
    assert (result.rows_in, result.rows_out, result.total_shards) == (3, 3, 2)
    assert dataset.run_stage(inputs, DatasetConfig(), store).unchanged


def test_what_an_earlier_version_rejected_may_come_again(
    fake_engine: FakeEngine, tmp_path: Path, work_root: Path, local_copies: Path
) -> None:
    source, store = tmp_path / "source", LocalStore(tmp_path / "store")
    source.mkdir()
    for seed in (1, 2):
        write_clip(source / f"clip-{seed}.mp4", sample_clip(seed))
    file = write_config(tmp_path / "config.json", fake_engine, probe={"licence": "my own"})
    config = RunConfig.model_validate(json.loads(file.read_text()))
    strict = config.model_copy(update={"dataset": DatasetConfig(commercial_only=True)})
    chain = Chain(strict, store)
    first = chain.caption(chain.curate(str(source))).dataset
    assert load_manifest(store, first).counts["reject:licence"] == 2
    read = DatasetConfig(commercial_only=True, commercial_licences=("my own",))
    chain = Chain(config.model_copy(update={"dataset": read}), store)
    second = chain.caption(chain.curate(str(source), published_clips(store, str(first))), first).dataset
    counts = load_manifest(store, second).counts
    assert (counts["rows_in"], counts["rows_out"]) == (2, 2)
    assert read_table(store, second, "rejects").num_rows == 0
    again = chain.curate(str(source), published_clips(store, str(second)))
    assert read_table(store, again.clips, "clips").num_rows == 0


def test_differences_are_told_clip_by_clip(store: LocalStore, tmp_path: Path) -> None:
    first, second = published_versions(store, tmp_path)
    done = CliRunner().invoke(app, ["dataset", "diff", str(first), str(second), "--store", str(store.root)])
    assert done.stdout == "added    clip-white\n1 added, 0 removed, 0 changed, 2 the same\n"


def test_differences_of_what_is_no_dataset_are_refused(store: LocalStore, tmp_path: Path) -> None:
    first, _ = published_versions(store, tmp_path)
    made = publish_captioned(store, tmp_path, ["red"])
    for pair in ((first, made.caption), (made.keyframes, first)):
        with pytest.raises(UserError, match=r"the output of stage (caption|keyframes) is no dataset"):
            differences(store, *pair)


def test_a_clip_leaves_every_version(store: LocalStore, tmp_path: Path, work_root: Path) -> None:
    first, second = published_versions(store, tmp_path)
    became = dict(take_down(store, ["clip-red"], "asked").rewritten)
    new = StageRef.parse(became[str(second)])
    assert read_table(store, new, "clips")["clip_id"].to_pylist() == ["clip-green", "clip-white"]
    assert load_manifest(store, new).config["@earlier"] == became[str(first)]
    card = read_file(store, new, dataset.CARD_NAME).decode()
    assert f"| {became[str(first)]} | 1 |\n| this version | 1 |" in card


def test_published_captions_are_taken_over_without_a_call(
    store: LocalStore, fake_engine: FakeEngine, tmp_path: Path, work_root: Path
) -> None:
    made = publish_captioned(store, tmp_path, ["red", "green"])
    inputs = dataset.DatasetInputs(made.clips, made.brief, made.keyframes, made.caption)
    ref = dataset.run_stage(inputs, DatasetConfig(), store).ref
    again = caption.CaptionInputs(made.clips, made.keyframes, fake_engine.spec(), published=ref)
    result = caption.run_stage(again, CaptionConfig(), store)
    assert (result.rows_in, result.rows_out, fake_engine.calls()) == (2, 2, [])

    def rows(ref: StageRef, table: str) -> list[dict[str, Any]]:
        held: list[dict[str, Any]] = read_table(store, ref, table).to_pylist()
        return sorted(held, key=lambda row: (row["clip_id"], row["end_s"]))

    for table in ("differentials", "captions"):
        assert rows(result.ref, table) == rows(made.caption, table)
    others = inputs_of(store, fake_engine.spec(), lengths=[2, 1])
    both = caption.CaptionInputs(others.clips, others.keyframes, others.captioner, published=ref)
    assert caption.run_stage(both, CaptionConfig(), store).rows_out == 2
    assert len(fake_engine.calls()) == 5  # three key frames and two summaries


def test_a_source_that_grew(
    fake_engine: FakeEngine, tmp_path: Path, work_root: Path, local_copies: Path
) -> None:
    source, store = tmp_path / "source", LocalStore(tmp_path / "store")
    source.mkdir()
    for seed in (1, 2):
        write_clip(source / f"clip-{seed}.mp4", sample_clip(seed))
    file = write_config(tmp_path / "config.json", fake_engine)
    chain = Chain(RunConfig.model_validate(json.loads(file.read_text())), store)
    first = chain.caption(chain.curate(str(source))).dataset
    write_clip(source / "clip-3.mp4", sample_clip(3))
    shutil.copy(source / "clip-3.mp4", tmp_path / "clip-3.mp4")
    fake_engine.settings()
    words = ["caption", str(source), "--store", str(store.root), "--config", str(file), "--add-to"]
    done = CliRunner().invoke(app, [*words, str(first)])
    assert done.exit_code == 0, done.output
    second = StageRef.parse(done.stdout.split()[-1])
    (new,) = set(read_table(store, second, "clips")["clip_id"].to_pylist()) - set(
        read_table(store, first, "clips")["clip_id"].to_pylist()
    )
    differentials = read_table(store, second, "differentials")["clip_id"].to_pylist()
    assert len(fake_engine.calls()) == 1 + differentials.count(new) + 1  # brief, key frames, summary
    assert load_manifest(store, first).parts[0] in load_manifest(store, second).parts
    assert published_clips(store, str(second)) == second
    assert load_manifest(store, curated_clips(store, second)).config["@published"] == str(first)
    with pytest.raises(UserError, match="to an output of dedup or dataset"):
        published_clips(store, f"caption/{first.key}@{first.content_hash}")
