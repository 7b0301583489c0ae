"""Clips, key frames and inputs of the caption stage for tests."""

from __future__ import annotations

from typing import Any

from share4video.config import CaptionConfig, EngineSpec
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import ShardSet, read_table, table_from_rows
from share4video.stages.caption import CaptionInputs
from share4video.stages.contract import StageResult
from share4video.store import Store
from tests.engines import picture

LENGTHS = [3, 1, 5, 2, 4, 2]
CONFIG = CaptionConfig(shards=2)


def clip_row(number: int) -> dict[str, Any]:
    return {
        "clip_id": f"clip-{number:02d}",
        "row_id": f"row-{number:02d}",
        "source_uri": f"films/{number}.mp4",
        "source_id": None,
        "content_hash": f"{number}",
        "scene": None,
        "start_s": 0.0,
        "end_s": 30.0,
        "licence": "cc0",
        "duration_s": 30.0,
        "fps": 8.0,
        "width": 64,
        "height": 48,
        "codec": "h264",
        "metadata": None,
    }


def frame_rows(number: int, length: int) -> list[dict[str, Any]]:
    return [
        {
            "clip_id": f"clip-{number:02d}",
            "index": index,
            "timestamp_s": 2.5 * index,
            "similarity": 0.5 if index else None,
            "jpeg": picture(f"rgb({30 * number}, {20 * index}, 0)"),
        }
        for index in range(length)
    ]


def publish_inputs(store: Store, lengths: list[int], parts: int = 2) -> tuple[StageRef, StageRef]:
    """Publish clips and their key frames, dealt out over ``parts``."""
    clips = ShardSet(store, "dedup", "1", inputs=[f"{lengths}"], config=CONFIG)
    clips.commit(0, {"clips": table_from_rows("clips", [clip_row(n) for n in range(len(lengths))])})
    keyframes = ShardSet(store, "keyframes", "1", inputs=[f"{lengths} {parts}"], config=CONFIG)
    for part in range(parts):
        rows = [row for n, length in enumerate(lengths) if n % parts == part for row in frame_rows(n, length)]
        keyframes.commit(part, {"keyframes": table_from_rows("keyframes", rows)})
    return clips.publish(1).ref, keyframes.publish(parts).ref


def inputs_of(
    store: Store, captioner: EngineSpec, summarizer: EngineSpec | None = None, **given: Any
) -> CaptionInputs:
    return CaptionInputs(
        *publish_inputs(store, given.pop("lengths", LENGTHS), **given), captioner, summarizer
    )


def rows_of(store: Store, result: StageResult, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_table(store, result.ref, table).to_pylist()
    return found


def files_of(store: Store, ref: StageRef) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list(ref.prefix)}
