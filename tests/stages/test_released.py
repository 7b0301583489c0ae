"""Released caption files imported as datasets, with their archives and without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from share4video.config import DatasetConfig, MixtureConfig
from share4video.dataset.formats import sharegpt4video
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.outputs import published_clips
from share4video.dataset.shards import read_file, read_table
from share4video.errors import UserError
from share4video.export.job import ExportOptions
from share4video.export.run import export
from share4video.media.sources.spec import ZIP_FOLDER
from share4video.stages import dataset, mixture
from share4video.stages.released import ImportConfig, ImportInputs, run_stage
from share4video.stages.takedown import take_down
from share4video.store import LocalStore
from tests.stages.captioned import publish_captioned, write_video

CONFIG = ImportConfig(licence="mine", records_per_shard=2)


def record(name: str, **changes: Any) -> dict[str, Any]:
    fields = {
        "video_id": name,
        "video_path": f"panda/{name}.mp4",
        "timestamp": [0, 1.5],
        "keyframe": [0, 12],
        "captions": [
            {"idx": "0", "content": f"A {name} square."},
            {"idx": "1", "content": "It moved."},
            {"idx": "-1", "content": f"A {name} square moves."},
        ],
        "zip_folder": "panda_videos_1.zip",
    }
    return {**fields, **changes}


RECORDS: list[dict[str, Any] | str] = [
    record("red"),
    "{",
    record("green", timestamp="soon"),
    record("red", video_path="panda/other.mp4"),
    record("white", captions=[{"idx": "0", "content": "A white square."}]),
    record("lost"),
    record("blue"),
]


def write_jsonl(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sharegpt4video_40k.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in RECORDS))
    return path


def write_archive(folder: Path) -> Path:
    (folder / "panda").mkdir(parents=True)
    with zipfile.ZipFile(folder / "panda" / "panda_videos_1.zip", "w") as archive:
        for name in ("red", "green", "blue"):
            write_video(folder / f"{name}.mp4", name)
            archive.write(folder / f"{name}.mp4", f"panda_videos/{name}.mp4")
    return folder


def test_text_alone_is_a_dataset(store: LocalStore, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path)
    result = run_stage(ImportInputs(str(path)), CONFIG, store)
    assert (result.rows_in, result.rows_out) == (7, 4)
    assert result.rejects == {"not_json": 1, "duplicate_id": 1, "no_summary": 1}
    assert result.metrics["note_timestamp_unreadable"] == 1
    clips = read_table(store, result.ref, "clips").to_pylist()
    assert [clip["source_id"] for clip in clips] == ["red", "green", "lost", "blue"]
    red, green = clips[:2]
    assert (red["content_hash"], red["duration_s"], red["width"], red["codec"]) == ("", 0, 0, "")
    assert (red["source_uri"], red["end_s"], red["licence"]) == (
        "panda/panda_videos_1.zip/red.mp4",
        1.5,
        "mine",
    )
    assert green["end_s"] == 0
    rows = read_table(store, result.ref, "differentials").to_pylist()
    of_red = [row for row in rows if row["clip_id"] == red["clip_id"]]
    assert [(row["index"], row["kind"], row["start_s"], row["end_s"]) for row in of_red] == [
        (0, "first", 0.0, 0.0),
        (1, "difference", 0.0, 1.5),
    ]
    assert {tuple(row["checks"]) for row in rows if row["clip_id"] == green["clip_id"]} == {("no_timestamp",)}
    captions = read_table(store, result.ref, "captions").to_pylist()
    assert {row["engine"] for row in captions} == {"gpt-4-turbo-2024-04-09"}
    assert next(row["caption"] for row in captions if row["role"] == "summary") == "A red square moves."
    card = read_file(store, result.ref, "README.md").decode()
    assert "7 records, 4 clips" in card
    assert "CC BY-NC 4.0" in card


def test_the_export_of_an_import_is_the_file_again(store: LocalStore, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path)
    result = run_stage(ImportInputs(str(path)), CONFIG, store)
    export(store, result.ref, tmp_path / "out", "sharegpt4video")
    kept = {"red": 0, "lost": 5, "blue": 6}
    read = {
        item.video_id: item
        for item in sharegpt4video.read(tmp_path / "out" / "sharegpt4video.jsonl")
        if isinstance(item, sharegpt4video.Record)
    }
    original = {
        item.video_id: item for item in sharegpt4video.read(path) if isinstance(item, sharegpt4video.Record)
    }
    assert read.keys() == {*kept, "green"}
    for name in kept:
        assert (read[name].captions, read[name].timestamps) == (
            original[name].captions,
            original[name].timestamps,
        )
        assert (read[name].video_path, read[name].zip_folder) == (
            original[name].video_path,
            original[name].zip_folder,
        )


def test_with_the_archives_the_clips_are_probed_and_usable(
    store: LocalStore, tmp_path: Path, local_copies: Path
) -> None:
    path, zips = write_jsonl(tmp_path / "released"), write_archive(tmp_path / "zips")
    result = run_stage(ImportInputs(str(path), str(zips)), CONFIG, store)
    assert (result.rows_in, result.rows_out) == (7, 3)
    assert result.rejects == {"not_json": 1, "duplicate_id": 1, "no_summary": 1, "unreadable": 1}
    rejects = {row["reason"]: row for row in read_table(store, result.ref, "rejects").to_pylist()}
    assert rejects["unreadable"]["source_id"] == "lost"
    assert rejects["unreadable"]["stage"] == "probe"
    clips = read_table(store, result.ref, "clips").to_pylist()
    assert [(clip["source_id"], clip["duration_s"], clip["width"]) for clip in clips] == [
        ("red", 2.0, 96),
        ("green", 2.0, 96),
        ("blue", 2.0, 96),
    ]
    source = f"{path}{ZIP_FOLDER}{zips}"
    mixed = mixture.run_stage(mixture.MixtureInputs(result.ref, source), MixtureConfig(), store)
    assert mixed.rows_out == 3
    index = export(store, result.ref, tmp_path / "out", "captioner", ExportOptions(source=source))
    # green's key frames have no times: its summary has no input, and nothing else of it can be trained on
    assert index["counts"] == {"fast": 2, "sliding": 4, "summary": 2}
    assert index["rejects"] == {"not_selected": 1}


def test_the_captioners_own_file_is_a_dataset_in_either_form(store: LocalStore, tmp_path: Path) -> None:
    elements = [
        {"video_path": "pexels/1.mp4", "caption": "A sea."},
        {"video_id": 7, "cap": "A hill."},
        {"id": "8", "captions": [{"idx": "0", "content": "A."}, {"idx": "-1", "content": "All."}]},
        {"video_path": "pexels/2.mp4"},
        {"caption": "Of nothing."},
        {"video_path": "pexels/1.mp4", "caption": "The sea again."},
        "text",
    ]
    refs = []
    for name, text in (
        ("list.json", json.dumps(elements)),
        ("lines.json", "\n".join(map(json.dumps, elements))),
    ):
        (tmp_path / name).write_text(text)
        result = run_stage(ImportInputs(str(tmp_path / name)), CONFIG, store)
        assert (result.rows_in, result.rows_out) == (7, 3)
        assert result.rejects == {"no_captions": 1, "wrong_shape": 2, "duplicate_id": 1}
        refs.append(result.ref)
    assert refs[0].content_hash == refs[1].content_hash
    clips = read_table(store, refs[0], "clips").to_pylist()
    assert [clip["source_id"] for clip in clips] == ["pexels/1.mp4", "7", "8"]
    assert {row["engine"] for row in read_table(store, refs[0], "captions").to_pylist()} == {
        "ShareCaptioner-Video"
    }


def test_a_second_run_does_nothing_and_a_killed_one_goes_on(store: LocalStore, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path)
    program = f"""
import os, signal
from share4video.dataset.shards import ShardSet
from share4video.stages.released import ImportConfig, ImportInputs, run_stage
from share4video.stages.takedown import take_down
from share4video.store import Store
commit = ShardSet.commit
def killed(self, shard, *rest):
    if shard == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return commit(self, shard, *rest)
ShardSet.commit = killed
run_stage(ImportInputs({str(path)!r}), ImportConfig(licence="mine", records_per_shard=2),
          Store.open({str(store.root)!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    result = run_stage(ImportInputs(str(path)), CONFIG, store)
    assert result.computed_shards == 2
    assert run_stage(ImportInputs(str(path)), CONFIG, store).unchanged
    elsewhere = LocalStore(tmp_path / "elsewhere")
    os.rename(path, tmp_path / "another.jsonl")
    assert run_stage(ImportInputs(str(tmp_path / "another.jsonl")), CONFIG, elsewhere).ref == result.ref


def test_mistakes_are_sentences(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the caption file"):
        run_stage(ImportInputs(str(tmp_path / "none.jsonl")), CONFIG, store)
    path = tmp_path / "captions.json"
    path.write_text('[{"video_path": "a", "caption": "b"}')
    with pytest.raises(UserError, match="breaks off after 1 elements"):
        run_stage(ImportInputs(str(path)), CONFIG, store)
    with pytest.raises(UserError, match="without --videos"):
        run_stage(ImportInputs(str(path), str(tmp_path)), CONFIG, store)
    path.write_text("[]")
    with pytest.raises(UserError, match="no record"):
        run_stage(ImportInputs(str(path)), CONFIG, store)
    path.write_text("[1, 2]")
    with pytest.raises(UserError, match="none of 2 rows is left"):
        run_stage(ImportInputs(str(path)), CONFIG, store)


def test_nothing_is_added_to_an_import(store: LocalStore, tmp_path: Path) -> None:
    imported = run_stage(ImportInputs(str(write_jsonl(tmp_path))), CONFIG, store).ref
    made = publish_captioned(store, tmp_path, ["red"])
    inputs = dataset.DatasetInputs(made.clips, made.brief, made.keyframes, made.caption, imported)
    with pytest.raises(UserError, match="was not captioned here"):
        dataset.run_stage(inputs, DatasetConfig(), store)
    with pytest.raises(UserError, match="to an imported dataset nothing is added"):
        published_clips(store, str(imported))


@pytest.mark.parametrize("with_videos", [False, True])
def test_one_clip_of_an_import_is_taken_down(
    store: LocalStore, tmp_path: Path, work_root: Path, local_copies: Path, with_videos: bool
) -> None:
    path = write_jsonl(tmp_path / "released")
    inputs = ImportInputs(str(path), str(write_archive(tmp_path / "zips")) if with_videos else None)
    before = run_stage(inputs, CONFIG, store)
    clips = read_table(store, before.ref, "clips").to_pylist()
    (red,) = (clip["clip_id"] for clip in clips if clip["source_id"] == "red")
    done = take_down(store, [red], "asked")
    assert done.clips == [red]
    after = StageRef.parse(dict(done.rewritten)[str(before.ref)])
    kept = [clip for clip in clips if clip["clip_id"] != red]
    assert read_table(store, after, "clips").to_pylist() == kept
    counts, differentials = load_manifest(store, after).counts, read_table(store, after, "differentials")
    assert (counts["rows_in"], counts["rows_out"]) == (6, len(kept))
    assert counts["metric:differentials"] == differentials.num_rows == 2 * len(kept)
    card = read_file(store, after, "README.md").decode()
    assert f"6 records, {len(kept)} clips" in card and "duplicate_id: 1" in card
    again = take_down(store, [kept[0]["clip_id"]], "asked too")
    assert again.clips == [kept[0]["clip_id"]]
