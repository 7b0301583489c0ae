"""A published dataset in every form, read back by the form's own reader."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from share4video.captioning import sharecaptioner
from share4video.captioning.role_inputs import Difference, First, KeyFrame, TimedCaption, Window
from share4video.captioning.roles import messages
from share4video.config import KeyframeConfig, MixtureConfig
from share4video.dataset.formats import (
    huggingface,
    llava,
    open_sora,
    open_sora_plan,
    sharegpt4video,
    webdataset,
)
from share4video.dataset.published import ClipSample, PublishedDataset
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.errors import UserError
from share4video.export.job import ExportOptions
from share4video.export.run import FORMATS, export
from share4video.media.compose import stacked_pair, tall_strip
from share4video.media.probe import content_hash
from share4video.media.sources import join_sources
from share4video.stages import mixture
from share4video.store import LocalStore
from tests.export.material import (
    Published,
    by,
    caption_row,
    clip_row,
    differential_rows,
    jpeg,
    publish_dataset,
    publish_tables,
)


@pytest.fixture
def published(store: LocalStore, tmp_path: Path) -> Published:
    return publish_dataset(store, tmp_path)


def _samples(store: LocalStore, published: Published) -> list[ClipSample]:
    return list(PublishedDataset.open(store, published.dataset).samples())


def _everything(published: Published) -> ExportOptions:
    return ExportOptions(source=str(published.source), keyframes=published.keyframes)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_is_the_same_bytes_again_and_tells_what_is_in_it(
    store: LocalStore, published: Published, tmp_path: Path, name: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    index = export(store, published.dataset, first, name, _everything(published))
    assert export(store, published.dataset, second, name, _everything(published)) == index
    found = _bytes(first)
    assert found == _bytes(second)
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


def test_the_captioners_training_data_are_what_the_captioner_is_asked(
    store: LocalStore, published: Published, tmp_path: Path
) -> None:
    options = ExportOptions(keyframes=published.keyframes)
    index = export(store, published.dataset, tmp_path / "out", "captioner", options)
    assert index["counts"] == {"fast": 3, "sliding": 6, "summary": 3, "recaption": 6}
    found = [
        item for item in llava.read(tmp_path / "out" / "captioner.json") if isinstance(item, llava.Sample)
    ]
    named = {sample.sample_id: sample for sample in found}
    summary = 'A "red" square, seen\nto move right.'
    fast, first, pair = (named[f"clip-red-{name}"] for name in ("fast", "sliding-000", "sliding-001"))
    assert fast.messages[0].content == "<image>\n" + sharecaptioner.FAST
    assert fast.messages[1].content == "A red square, in one go."
    assert first.messages[0].content == "<image>\n" + sharecaptioner.FIRST
    assert pair.messages[0].content == "<image>\n" + sharecaptioner.difference_text(
        1, 0.0, 2, 1.0, "red at frame 0."
    )
    assert pair.messages[1].content == "red at frame 1."
    frames = [Image.open(io.BytesIO(data)).convert("RGB") for data in _stored(store, published, "clip-red")]
    for sample, layout in ((fast, tall_strip(frames)), (pair, stacked_pair(*frames)), (first, frames[0])):
        assert sample.image is not None
        assert (tmp_path / "out" / sample.image).read_bytes() == sharecaptioner.encode_jpeg(layout)
    asked, answered = named["clip-red-summary"].messages
    captions = [TimedCaption(1, 0.0, "red at frame 0."), TimedCaption(2, 1.0, "red at frame 1.")]
    assert (asked.content, answered.content) == (sharecaptioner.summary_text(captions), summary)
    there, back = named["clip-red-recaption-0"].messages, named["clip-red-prompt-0"].messages
    assert (there[0].content, there[1].content) == (sharecaptioner.recaption_text("red square"), summary)
    assert back[0].content.endswith(summary)
    assert back[1].content == "red square"


def _stored(store: LocalStore, published: Published, clip_id: str) -> list[bytes]:
    from share4video.dataset.shards import read_table

    rows = read_table(store, published.keyframes, "keyframes").sort_by("index").to_pylist()
    return [row["jpeg"] for row in rows if row["clip_id"] == clip_id]


def test_key_frames_are_decoded_where_none_are_stored(
    store: LocalStore, published: Published, tmp_path: Path
) -> None:
    export(
        store, published.dataset, tmp_path / "out", "captioner", ExportOptions(source=str(published.source))
    )
    (fast, *_) = llava.read(tmp_path / "out" / "captioner.json")
    assert isinstance(fast, llava.Sample)
    with Image.open(tmp_path / "out" / str(fast.image)) as strip:
        assert strip.size == (100 + 96 + 20, 20 + 2 * (48 + 20))


def test_balanced_data_have_as_much_of_every_role(
    store: LocalStore, published: Published, tmp_path: Path
) -> None:
    def chosen(folder: str, seed: int) -> list[Any]:
        options = ExportOptions(keyframes=published.keyframes, balanced=True, seed=seed)
        index = export(store, published.dataset, tmp_path / folder, "captioner", options)
        assert index["counts"] == {"fast": 3, "sliding": 3, "summary": 3, "recaption": 3}
        return list(llava.read(tmp_path / folder / "captioner.json"))

    assert len({str(chosen(f"out-{seed}", seed)) for seed in range(4)}) > 1


def test_a_caption_that_failed_its_checks_is_no_target(store: LocalStore, tmp_path: Path) -> None:
    differentials = differential_rows("a", ("first", "difference", "anchor"))
    differentials[1].update(by(["repeats"]))
    captions = [caption_row("a", "summary", "All of it.", checks=["repeats"])]
    ref = publish_tables(
        store,
        [{"clips": [clip_row("a")], "captions": captions, "differentials": differentials, "rejects": []}],
    )
    frames = publish_dataset(store, tmp_path).keyframes
    with pytest.raises(UserError, match="no key frames of clip clip-a"):
        export(store, ref, tmp_path / "none", "captioner", ExportOptions(keyframes=frames))
    assert not (tmp_path / "none").exists()
    samples = PublishedDataset.open(store, ref).samples()
    from share4video.captioning.role_samples import role_samples

    assert [sample.name for sample in role_samples(next(samples))] == ["sliding-000", "sliding-002"]


def test_a_window_shows_its_frames_or_is_left_out(store: LocalStore, tmp_path: Path) -> None:
    first, _, _, window, pair, anchor = differential_rows(
        "red", ("first", "", "", "window", "difference", "anchor")
    )
    captions = [caption_row("red", "summary", "All of it.")]
    source = publish_dataset(store, tmp_path).source
    clip = clip_row("red", content_hash=content_hash(source / "red.mp4"))
    ref = publish_tables(
        store,
        [
            {
                "clips": [clip],
                "captions": captions,
                "differentials": [first, window, pair, anchor],
                "rejects": [],
            }
        ],
    )
    pictures = [jpeg(40 * number) for number in range(6)]
    output = ShardSet(store, "keyframes", "1", inputs=["six"], config=KeyframeConfig())
    rows = [
        {
            "clip_id": "clip-red",
            "index": number,
            "timestamp_s": float(number),
            "similarity": None,
            "jpeg": data,
        }
        for number, data in enumerate(pictures)
    ]
    output.commit(0, {"keyframes": table_from_rows("keyframes", rows)})
    options = ExportOptions(keyframes=output.publish(1).ref)
    index = export(store, ref, tmp_path / "out", "captioner", options)
    assert index["counts"] == {"fast": 1, "sliding": 4, "summary": 1}
    named = {
        item.sample_id: item
        for item in llava.read(tmp_path / "out" / "captioner.json")
        if isinstance(item, llava.Sample)
    }
    frames = tuple(KeyFrame(n + 1, float(n), data) for n, data in enumerate(pictures))
    for name, given in {
        "sliding-000": First(frames[0]),
        "sliding-003": Window(frames[:4], "red at frame 0."),
        "sliding-004": Difference(frames[3], frames[4], "red at frame 3."),
        "sliding-005": First(frames[5]),
    }.items():
        (asked,) = messages("sharecaptioner", given)
        sample = named[f"clip-red-{name}"]
        assert sample.messages[0].content == "<image>\n" + asked["content"][-1]["text"]
        shown = base64.b64encode((tmp_path / "out" / str(sample.image)).read_bytes()).decode()
        assert asked["content"][0]["image_url"]["url"].endswith(shown)
    for balanced in (False, True):
        decoded = ExportOptions(source=str(source), balanced=balanced)
        index = export(store, ref, tmp_path / f"decoded-{balanced}", "captioner", decoded)
        sliding = 1 if balanced else 3
        assert index["counts"] == {"fast": 1, "sliding": sliding, "summary": 1, "windows_without_frames": 1}


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
