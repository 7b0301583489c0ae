"""A published dataset in every form, read back by the form's own reader."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest
import yaml
from PIL import Image

from share4video.config import MixtureConfig
from share4video.dataset.formats import (
    huggingface,
    llava,
    open_sora,
    open_sora_plan,
    sharegpt4video,
    videochat,
    webdataset,
)
from share4video.dataset.published import ClipSample, PublishedDataset
from share4video.errors import UserError
from share4video.export.job import ExportOptions
from share4video.export.run import FORMATS, export
from share4video.media.sources import join_sources
from share4video.stages import mixture
from share4video.store import LocalStore
from tests.export.material import (
    Published,
    bytes_of,
    caption_row,
    clip_row,
    publish_dataset,
    publish_tables,
)


def _samples(store: LocalStore, published: Published) -> list[ClipSample]:
    return list(PublishedDataset.open(store, published.dataset).samples())


def _everything(published: Published) -> ExportOptions:
    return ExportOptions(source=str(published.source), keyframes=published.keyframes)


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_is_the_same_bytes_again_and_tells_what_is_in_it(
    store: LocalStore, published: Published, tmp_path: Path, name: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    index = export(store, published.dataset, first, name, _everything(published))
    assert export(store, published.dataset, second, name, _everything(published)) == index
    found = bytes_of(first)
    assert found == bytes_of(second)
    assert (index["rows_in"], index["rows_out"], index["rejects"]) == (3, 3, {})
    assert {file["name"]: file["sha256"] for file in index["files"]} == {
        path: hashlib.sha256(data).hexdigest() for path, data in found.items() if path != "export.json"
    }
    assert str(tmp_path).encode() not in b"".join(found.values())
    written = os.stat(first / "export.json").st_mtime_ns
    assert export(store, published.dataset, first, name, _everything(published)) == index
    assert os.stat(first / "export.json").st_mtime_ns == written


def test_the_released_form_is_read_back(store: LocalStore, published: Published, tmp_path: Path) -> None:
    export(store, published.dataset, tmp_path / "out", "sharegpt4video")
    red, blue, green = sharegpt4video.read(tmp_path / "out" / "sharegpt4video.jsonl")
    assert isinstance(red, sharegpt4video.Record)
    assert (red.video_id, red.video_path, red.timestamps) == ("clip-red", "red.mp4", (0.0, 1.0))
    assert [caption.content for caption in red.differentials] == ["red at frame 0.", "red at frame 1."]
    assert red.summary == 'A "red" square, seen\nto move right.'
    assert [item.video_id for item in (blue, green) if isinstance(item, sharegpt4video.Record)] == [
        "clip-blue",
        "clip-green",
    ]


def test_videochats_forms_are_read_back(store: LocalStore, published: Published, tmp_path: Path) -> None:
    summary = 'A "red" square, seen\nto move right.'
    export(store, published.dataset, tmp_path / "asked", "videochat")
    red, *_ = videochat.read(tmp_path / "asked" / "videochat.json")
    assert red == videochat.Instruction(
        "video", "red.mp4", (videochat.QA("Describe this video in detail.", summary),)
    )
    options = ExportOptions(source=str(published.source))
    export(store, published.dataset, tmp_path / "told", "videochat-captions", options)
    red, *_ = videochat.read(tmp_path / "told" / "videochat.json")
    assert isinstance(red, videochat.Caption)
    assert red.text == summary and (tmp_path / "told" / red.path).is_file()


def test_parquet_shards_hold_every_row(store: LocalStore, published: Published, tmp_path: Path) -> None:
    export(store, published.dataset, tmp_path / "out", "huggingface")
    files = sorted((tmp_path / "out" / "data").iterdir())
    assert [file.name for file in files] == ["train-00000-of-00001.parquet"]
    assert list(huggingface.read(files[0])) == _samples(store, published)
    header, _, body = (tmp_path / "out" / "README.md").read_text().removeprefix("---\n").partition("---\n")
    fields = yaml.safe_load(header)
    assert (fields["license"], fields["size_categories"], fields["pretty_name"]) == (
        "cc0-1.0",
        ["n<1K"],
        "Squares",
    )
    assert fields["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert "| summary | sharecaptioner | sharecaptioner-1 | captioner@0123 | 3 |" in body


def test_shards_are_cut_by_size_and_lose_nothing(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish_dataset(store, tmp_path, shards=1)
    monkeypatch.setattr(huggingface, "ROWS_PER_GROUP", 1)
    small = ExportOptions(shard_bytes=1)
    export(store, published.dataset, tmp_path / "hub", "huggingface", small)
    names = [huggingface.shard_name(number, 3) for number in range(3)]
    read = [sample for name in names for sample in huggingface.read(tmp_path / "hub" / name)]
    assert read == _samples(store, published)
    export(store, published.dataset, tmp_path / "wds", "webdataset", small)
    index = json.loads((tmp_path / "wds" / "shards.json").read_text())
    assert (index["__kind__"], index["wids_version"]) == ("wids-shard-index-v1", 1)
    found = []
    for entry in index["shardlist"]:
        data = (tmp_path / "wds" / entry["url"]).read_bytes()
        assert (entry["nsamples"], entry["filesize"]) == (1, len(data))
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["md5sum"] == hashlib.md5(data, usedforsecurity=False).hexdigest()
        found += list(webdataset.read(tmp_path / "wds" / entry["url"]))
    assert [webdataset.clip_sample(item) for item in found if isinstance(item, webdataset.Sample)] == read


@pytest.mark.parametrize("media", ["videos", "keyframes", "text"])
def test_webdataset_samples_hold_what_there_is_to_see(
    store: LocalStore, published: Published, tmp_path: Path, media: str
) -> None:
    options = {
        "videos": ExportOptions(source=str(published.source)),
        "keyframes": ExportOptions(keyframes=published.keyframes),
        "text": ExportOptions(),
    }[media]
    export(store, published.dataset, tmp_path / "out", "webdataset", options)
    (red, *_) = webdataset.read(tmp_path / "out" / "shard-000000.tar")
    assert isinstance(red, webdataset.Sample)
    shown = {"videos": ["mp4"], "keyframes": ["000.jpg", "001.jpg"], "text": []}[media]
    assert list(red.members) == [*shown, "json", "txt"]
    if media == "videos":
        assert red.members["mp4"] == (published.source / "red.mp4").read_bytes()
    assert webdataset.clip_sample(red) == _samples(store, published)[0]
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        assert {(info.mtime, info.uid, info.uname) for info in tar} == {(0, 0, "")}


def test_text_to_video_lists_name_files_frames_and_sizes(
    store: LocalStore, published: Published, tmp_path: Path
) -> None:
    export(store, published.dataset, tmp_path / "csv", "open-sora")
    (row, *_) = open_sora.read(tmp_path / "csv" / "videos.csv")
    summary = 'A "red" square, seen\nto move right.'
    assert row == open_sora.Video("red.mp4", summary, 16, 96, 48, 8.0)
    header = (tmp_path / "csv" / "videos.csv").read_text().splitlines()[0]
    assert header == '"path","text","num_frames","width","height","aspect_ratio","resolution","fps"'
    export(store, published.dataset, tmp_path / "json", "open-sora-plan")
    first = json.loads((tmp_path / "json" / "videos.json").read_text())[0]
    assert first == {
        "path": "red.mp4",
        "cap": summary,
        "resolution": {"height": 48, "width": 96},
        "num_frames": 16,
        "fps": 8.0,
        "cut": [0, 16],
        "crop": [0, 96, 0, 48],
    }
    export(
        store, published.dataset, tmp_path / "all", "open-sora", ExportOptions(source=str(published.source))
    )
    (row, *_) = open_sora.read(tmp_path / "all" / "videos.csv")
    assert isinstance(row, open_sora.Video)
    assert (tmp_path / "all" / row.path).read_bytes() == (published.source / "red.mp4").read_bytes()


def test_a_part_of_a_file_goes_only_where_a_span_can_be_said(store: LocalStore, tmp_path: Path) -> None:
    scenes = [
        clip_row("a", source_uri="film.mp4", content_hash="film", scene=0),
        clip_row("b", source_uri="other.mp4", content_hash="other", start_s=2.0, end_s=4.0),
        clip_row("c"),
    ]
    captions = [caption_row(name, "summary", f"Scene {name}.") for name in "abc"]
    ref = publish_tables(store, [{"clips": scenes, "captions": captions, "differentials": [], "rejects": []}])
    index = export(store, ref, tmp_path / "csv", "open-sora")
    assert (index["rows_out"], index["rejects"]) == (1, {"part_of_a_file": 2})
    rejects = [json.loads(line) for line in (tmp_path / "csv" / "rejects.jsonl").read_text().splitlines()]
    assert [reject["clip_id"] for reject in rejects] == ["clip-a", "clip-b"]
    assert export(store, ref, tmp_path / "video", "llava-video")["rejects"] == {"part_of_a_file": 2}
    export(store, ref, tmp_path / "plan", "open-sora-plan")
    cuts = [
        video.first_frame
        for video in open_sora_plan.read(tmp_path / "plan" / "videos.json")
        if isinstance(video, open_sora_plan.Video)
    ]
    assert cuts == [0, 16, 0]


def test_llava_conversations_show_a_video_or_its_grid(
    store: LocalStore, published: Published, tmp_path: Path
) -> None:
    videos = ExportOptions(source=str(published.source))
    export(store, published.dataset, tmp_path / "grid", "llava-grid", videos)
    (red, *_) = llava.read(tmp_path / "grid" / "llava.json")
    assert isinstance(red, llava.Sample)
    assert red.image is not None
    with Image.open(tmp_path / "grid" / red.image) as grid:
        assert grid.size == (4 * 96 + 3 * 50, 4 * 48 + 3 * 50)
    assert "grid view" in red.messages[0].content
    export(store, published.dataset, tmp_path / "video", "llava-video")
    (red, *_) = llava.read(tmp_path / "video" / "llava.json")
    assert isinstance(red, llava.Sample)
    assert (red.image, red.video) == (None, "red.mp4")
    assert red.messages[0].content == "<image>\nDescribe this video in detail."
    assert red.messages[1].content == 'A "red" square, seen\nto move right.'


def test_the_hubs_card_has_one_name_for_a_licence(store: LocalStore, tmp_path: Path) -> None:
    clips = [
        clip_row("a", licence="cc by 4.0"),
        clip_row("b", licence="https://creativecommons.org/licenses/by/4.0/"),
    ]
    captions = [caption_row(name, "summary", f"{name}.") for name in "ab"]
    ref = publish_tables(store, [{"clips": clips, "captions": captions, "differentials": [], "rejects": []}])
    export(store, ref, tmp_path / "out", "huggingface")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: cc-by-4.0\n" in card
    assert "| - | CC-BY-4.0 | 2 |" in card


def test_clips_are_left_out_by_a_rule_or_without_a_summary(store: LocalStore, tmp_path: Path) -> None:
    clips = [clip_row("a", licence="no"), clip_row("b"), clip_row("c")]
    captions = [caption_row("a", "summary", "A."), caption_row("b", "summary", "B.")]
    ref = publish_tables(store, [{"clips": clips, "captions": captions, "differentials": [], "rejects": []}])
    index = export(
        store,
        ref,
        tmp_path / "out",
        "sharegpt4video",
        leave_out=lambda clip: ("not_commercial", "it may not be sold") if clip["licence"] == "no" else None,
        filter_name="commercial_only",
    )
    assert (index["rows_out"], index["rejects"]) == (1, {"no_summary": 1, "not_commercial": 1})
    assert index["filter"] == "commercial_only"


def test_an_export_of_nothing_is_an_error_and_no_folder(store: LocalStore, tmp_path: Path) -> None:
    clips = [clip_row("a"), clip_row("b", start_s=1.0), clip_row("c", start_s=1.0)]
    captions = [caption_row(name, "summary", "Of a part.") for name in "bc"]
    ref = publish_tables(store, [{"clips": clips, "captions": captions, "differentials": [], "rejects": []}])
    said = r"none of 3 rows is left, 1 as no_summary, 2 as part_of_a_file \(.*for one, [abc]\.mp4: "
    with pytest.raises(UserError, match=said):
        export(store, ref, tmp_path / "out", "llava-video")
    assert not list(tmp_path.glob("*out*"))


def test_the_videos_of_a_version_that_grew_come_from_both_folders(
    store: LocalStore, published: Published, tmp_path: Path
) -> None:
    later = tmp_path / "later"
    later.mkdir()
    (published.source / "blue.mp4").rename(later / "blue.mp4")
    options = ExportOptions(source=join_sources([str(published.source), str(later)]))
    index = export(store, published.dataset, tmp_path / "out", "llava-grid", options)
    assert (index["rows_out"], index["rejects"]) == (3, {})


def test_videos_that_cannot_be_decoded_are_left_out_and_lost_ones_stop(
    store: LocalStore, published: Published, tmp_path: Path
) -> None:
    (published.source / "red.mp4").write_text("not that video any more")
    options = ExportOptions(source=str(published.source))
    with pytest.raises(UserError, match="does not hold clip clip-red"):
        export(store, published.dataset, tmp_path / "out", "llava-grid", options)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_a_mixture_is_one_file_with_its_pictures(
    store: LocalStore, published: Published, tmp_path: Path
) -> None:
    config = MixtureConfig(clips_per_shard=2)
    mixed = mixture.run_stage(mixture.MixtureInputs(published.dataset, str(published.source)), config, store)
    index = export(store, mixed.ref, tmp_path / "out", "llava")
    assert (index["rows_in"], index["rows_out"], index["counts"]) == (3, 3, {"caption": 3})
    found = [item for item in llava.read(tmp_path / "out" / "llava.json") if isinstance(item, llava.Sample)]
    assert len(found) == 3
    assert all((tmp_path / "out" / str(sample.image)).is_file() for sample in found)
    with pytest.raises(UserError, match="is no mixture"):
        export(store, published.dataset, tmp_path / "none", "llava")


def test_mistakes_are_sentences(store: LocalStore, published: Published, tmp_path: Path) -> None:
    for name, said in (("x", "no such format"), ("llava-grid", "--source"), ("captioner", "--keyframes")):
        with pytest.raises(UserError, match=said):
            export(store, published.dataset, tmp_path / "out", name)
    with pytest.raises(UserError, match="is no dataset"):
        export(store, published.keyframes, tmp_path / "out", "huggingface")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(UserError, match="not empty"):
        export(store, published.dataset, tmp_path / "full", "huggingface")
