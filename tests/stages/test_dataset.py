"""The published dataset: every clip answered for, the released jsonl form, the card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from share4video.config import DatasetConfig
from share4video.dataset.formats import sharegpt4video
from share4video.dataset.formats.sharegpt4video import Record
from share4video.dataset.shards import ShardSet, read_file, read_table, table_from_rows
from share4video.export.run import export
from share4video.stages.dataset import CARD_NAME, EXPORT_NAME, DatasetInputs, run_stage
from share4video.store import LocalStore, Store
from tests.stages.captioned import Captioned, publish_captioned

CONFIG = DatasetConfig(title="Squares")


def _inputs(captioned: Captioned) -> DatasetInputs:
    return DatasetInputs(captioned.clips, captioned.brief, captioned.keyframes, captioned.caption)


@pytest.fixture
def captioned(store: LocalStore, tmp_path: Path) -> Captioned:
    return publish_captioned(store, tmp_path, ["red", "green", "white"], unsummarised=("green",))


def test_a_clip_without_a_summary_is_a_reject(store: LocalStore, captioned: Captioned) -> None:
    result = run_stage(_inputs(captioned), CONFIG, store)
    assert (result.rows_in, result.rows_out, result.rejects) == (3, 2, {"no_summary": 1})
    (reject,) = read_table(store, result.ref, "rejects").to_pylist()
    assert (reject["row_id"], reject["reason"], reject["stage"]) == ("row-green", "no_summary", "dataset")
    clips = read_table(store, result.ref, "clips").to_pylist()
    assert [clip["clip_id"] for clip in clips] == ["clip-red", "clip-white"]


def test_captions_of_all_roles_say_who_wrote_them(store: LocalStore, captioned: Captioned) -> None:
    result = run_stage(_inputs(captioned), CONFIG, store)
    rows = [
        row for row in read_table(store, result.ref, "captions").to_pylist() if row["clip_id"] == "clip-red"
    ]
    assert [row["role"] for row in rows] == ["brief", "sliding", "sliding", "summary"]
    assert {(row["engine"], row["dialect"], row["prompt_version"]) for row in rows} == {
        ("captioner@0123", "sharecaptioner", "sharecaptioner-1")
    }
    assert [(row["start_s"], row["end_s"]) for row in rows] == [(0, 2), (0, 0), (0, 2), (0, 2)]
    assert rows[2]["caption"] == "The red square moves right."


def test_the_export_is_the_released_form(store: LocalStore, captioned: Captioned, tmp_path: Path) -> None:
    result = run_stage(_inputs(captioned), CONFIG, store)
    file = tmp_path / EXPORT_NAME
    file.write_bytes(read_file(store, result.ref, EXPORT_NAME))
    red, white = list(sharegpt4video.read(file))
    assert isinstance(red, Record)
    assert isinstance(white, Record)
    assert not red.notes
    assert (red.video_id, red.video_path, red.zip_folder) == ("clip-red", "red.mp4", "")
    assert red.timestamps == (0.0, 2.0)
    assert [caption.idx for caption in red.captions] == ["0", "1", "-1"]
    assert red.summary == "A small red square moves to the right."
    assert json.loads(file.read_bytes().splitlines()[0])["keyframe"] == [0, 1]


def test_the_file_and_the_export_say_the_same_of_a_clip_in_an_archive(
    store: LocalStore, captioned: Captioned, tmp_path: Path
) -> None:
    rows = read_table(store, captioned.clips, "clips").to_pylist()
    rows = [{**row, "source_uri": f"panda/panda_1.zip/{row['source_uri']}"} for row in rows]
    output = ShardSet(store, "dedup", "1", inputs=["archived"], config=DatasetConfig())
    output.commit(0, {"clips": table_from_rows("clips", rows)})
    made = replace(captioned, clips=output.publish(1).ref)
    ref = run_stage(_inputs(made), CONFIG, store).ref
    lines = read_file(store, ref, EXPORT_NAME)
    first = json.loads(lines.splitlines()[0])
    assert (first["video_path"], first["zip_folder"]) == ("panda/red.mp4", "panda_1.zip")
    export(store, ref, tmp_path / "out", "sharegpt4video")
    assert (tmp_path / "out" / EXPORT_NAME).read_bytes() == lines


def test_the_card_tells_counts_models_and_what_was_left_out(store: LocalStore, captioned: Captioned) -> None:
    result = run_stage(_inputs(captioned), CONFIG, store)
    card = read_file(store, result.ref, CARD_NAME).decode()
    assert "# Squares" in card
    assert "2 clips" in card
    assert "| summary | sharecaptioner | sharecaptioner-1 | captioner@0123 | 2 |" in card
    assert "| repeats | 1 |" in card
    assert "| no_summary | 1 |" in card
    assert "| synthetic | 2 |" in card


def test_a_second_run_finds_the_first_and_another_store_holds_the_same_bytes(
    store: LocalStore, captioned: Captioned, tmp_path: Path
) -> None:
    first = run_stage(_inputs(captioned), CONFIG, store)
    second = run_stage(_inputs(captioned), CONFIG, store)
    assert (first.computed_shards, second.computed_shards) == (1, 0)
    assert first.ref == second.ref
    assert first.metrics == second.metrics
    elsewhere: Store = LocalStore(tmp_path / "elsewhere")
    again = publish_captioned(elsewhere, tmp_path, ["red", "green", "white"], unsummarised=("green",))
    assert run_stage(_inputs(again), CONFIG, elsewhere).ref == first.ref


def test_no_clip_at_all_is_an_empty_dataset(store: LocalStore, tmp_path: Path) -> None:
    result = run_stage(_inputs(publish_captioned(store, tmp_path, [])), CONFIG, store)
    assert (result.rows_in, result.rows_out) == (0, 0)
    assert read_file(store, result.ref, EXPORT_NAME) == b""
