"""The caption stage on long clips: cuts, parts, windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from share4video.captioning.notes import estimated_tokens
from share4video.config import CaptionConfig, KeyframeConfig
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.stages.caption import CaptionInputs, run_stage
from share4video.store import LocalStore
from tests.engines import FakeEngine
from tests.stages.caption_material import (
    frame_rows,
    inputs_of,
    publish_inputs,
    rows_of,
)


def test_a_scene_cut_is_described_in_full(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    """The frames are 0.5 alike: for the encoder's own bound one scene, for one of 0.6 two."""
    inputs = inputs_of(store, fake_engine.spec(), lengths=[3], parts=1)

    def kinds(**settings: Any) -> list[str]:
        config = CaptionConfig(shards=1, **settings)
        rows = rows_of(store, run_stage(inputs, config, store), "differentials")
        return [row["kind"] for row in sorted(rows, key=lambda row: row["index"])]

    assert kinds() == ["first", "difference", "difference"]
    assert kinds(cut_threshold=0.6) == ["first", "anchor", "anchor"]
    assert kinds(cut_threshold=0.6, mode="reference") == ["first", "difference", "difference"]


def test_the_bound_on_cuts_is_the_key_frames_encoders_own(store: LocalStore, fake_engine: FakeEngine) -> None:
    clips, _ = publish_inputs(store, [2], parts=1)
    keys = []
    for encoder in ("descriptor", "open_clip:ViT-L-14-336-quickgelu"):
        keyframes = ShardSet(store, "keyframes", "1", inputs=[], config=KeyframeConfig(encoder=encoder))
        keyframes.commit(0, {"keyframes": table_from_rows("keyframes", frame_rows(0, 2))})
        inputs = CaptionInputs(clips, keyframes.publish(1).ref, fake_engine.spec())
        result = run_stage(inputs, CaptionConfig(shards=1), store)
        keys.append([row["kind"] for row in rows_of(store, result, "differentials")])
    assert keys == [["first", "difference"], ["first", "anchor"]]


def test_a_long_clip_is_summed_up_in_parts_that_are_published(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    summarizer = fake_engine.spec(model="words")
    inputs = inputs_of(store, fake_engine.spec(), summarizer, lengths=[40], parts=1)
    config = CaptionConfig(
        mode="reference",
        summary_budget_tokens=2048,
        max_tokens_difference=64,
        max_tokens_summary=64,
        shards=1,
    )
    result = run_stage(inputs, config, store)
    rows = rows_of(store, result, "captions")
    parts = sorted((row for row in rows if row["role"] == "part_summary"), key=lambda row: row["start_s"])
    (whole,) = (row for row in rows if row["role"] == "summary")
    assert (whole["start_s"], whole["end_s"]) == (0.0, 30.0)
    lowest = [row for row in parts if not any(_inside(other, row) for other in parts)]
    assert [row["start_s"] for row in lowest] == [0.0, *(row["end_s"] for row in lowest[:-1])]
    assert lowest[-1]["end_s"] == 2.5 * 39
    assert {row["engine"] for row in parts} == {"words@1"}
    prompts = [call["prompt"] for call in fake_engine.calls() if call["body"]["model"] == "words"]
    assert all(estimated_tokens(prompt) <= 2048 for prompt in prompts)
    assert "Video from 0.00 to" in prompts[-1]


def _inside(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one is not other and one["start_s"] >= other["start_s"] and one["end_s"] <= other["end_s"]


def test_windows_are_told_from_several_frames(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    inputs = inputs_of(store, fake_engine.spec(dialect="teacher"), lengths=[6], parts=1)
    result = run_stage(inputs, CaptionConfig(window=4, memory=False, shards=1), store)
    rows = sorted(rows_of(store, result, "differentials"), key=lambda row: row["index"])
    assert [(row["index"], row["kind"], row["start_s"], row["end_s"]) for row in rows] == [
        (0, "first", 0.0, 0.0),
        (3, "window", 0.0, 7.5),
        (5, "window", 7.5, 12.5),
    ]
    shown = [call["images"] for call in fake_engine.calls()]
    assert [len(images) for images in shown] == [1, 4, 3, 0]
    assert shown[1][-1] == shown[2][0]
    assert not any("What happened up to" in call["prompt"] for call in fake_engine.calls())
