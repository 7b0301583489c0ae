"""The captioner's training data: what it is asked and shown, role by role."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from share4video.captioning import sharecaptioner
from share4video.captioning.role_inputs import Difference, First, KeyFrame, TimedCaption, Window
from share4video.captioning.roles import messages
from share4video.cli.main import app
from share4video.config import KeyframeConfig
from share4video.dataset.formats import (
    llava,
)
from share4video.dataset.published import PublishedDataset
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.errors import UserError
from share4video.export.job import ExportOptions
from share4video.export.run import export
from share4video.media.compose import hd_size, stacked_pair, tall_strip
from share4video.media.probe import content_hash
from share4video.store import LocalStore
from share4video.wording import TileBudgets
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


def test_pictures_can_be_whole_tiles(store: LocalStore, published: Published, tmp_path: Path) -> None:
    """As the paper trained: 55 tiles for a strip of all key frames, 25 for one frame or two."""
    tiles = TileBudgets(fast=55, sliding=25)
    options = ExportOptions(keyframes=published.keyframes, tiles=tiles)
    export(store, published.dataset, tmp_path / "out", "captioner", options)
    assert ExportOptions().recipe() != options.recipe()
    frames = [Image.open(io.BytesIO(data)).convert("RGB") for data in _stored(store, published, "clip-red")]
    wanted = {
        "clip-red-fast": hd_size(*tall_strip(frames).size, 55),
        "clip-red-sliding-000": hd_size(*frames[0].size, 25),
        "clip-red-sliding-001": hd_size(*stacked_pair(*frames).size, 25),
    }
    found = {}
    for sample in llava.read(tmp_path / "out" / "captioner.json"):
        assert isinstance(sample, llava.Sample)
        if sample.sample_id in wanted and sample.image is not None:
            found[sample.sample_id] = Image.open(tmp_path / "out" / sample.image).size
    assert found == wanted


@pytest.mark.parametrize("given", ["55", "a,b", "0,9", "16,99", "1,2,3"])
def test_budgets_that_are_none_are_said(given: str, store: LocalStore, published: Published) -> None:
    ref, to = str(published.dataset), str(store.root / "out")
    verb = ["dataset", "export", ref, "--to", to, "--format", "captioner", "--store", str(store.root)]
    done = CliRunner().invoke(app, [*verb, "--keyframes", str(published.keyframes), "--tiles", given])
    assert isinstance(done.exception, UserError | SystemExit)
    assert "two numbers from 1 to 64" in f"{done.output}{done.exception}"
