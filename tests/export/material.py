"""A published dataset of real clips with captions in every role."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from share4video.config import DatasetConfig, KeyframeConfig
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.media.probe import content_hash
from share4video.store import Store
from tests.stages.captioned import SIDE, write_video

ENGINE = "captioner@0123"


@dataclass(frozen=True)
class Published:
    """A dataset, its key frames, and the folder of its videos."""

    dataset: StageRef
    keyframes: StageRef
    source: Path


def jpeg(shade: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (2 * SIDE, SIDE), (shade, 90, 90)).save(sink, "JPEG")
    return sink.getvalue()


def by(checks: list[str] | None = None) -> dict[str, Any]:
    names = {"engine": ENGINE, "dialect": "sharecaptioner", "prompt_version": "sharecaptioner-1"}
    return {**names, "prompt_tokens": 1, "tokens": 1, "attempt": 0, "checks": checks or []}


def clip_row(name: str, **changes: Any) -> dict[str, Any]:
    row = {
        "clip_id": f"clip-{name}",
        "row_id": f"row-{name}",
        "source_uri": f"{name}.mp4",
        "source_id": None,
        "content_hash": f"hash-{name}",
        "scene": None,
        "start_s": 0.0,
        "end_s": 2.0,
        "licence": "CC0-1.0",
        "duration_s": 2.0,
        "fps": 8.0,
        "width": 2 * SIDE,
        "height": SIDE,
        "codec": "h264",
        "metadata": None,
    }
    return {**row, **changes}


def caption_row(name: str, role: str, text: str, **changes: Any) -> dict[str, Any]:
    row = {"clip_id": f"clip-{name}", "start_s": 0.0, "end_s": 2.0, "role": role, "caption": text, **by()}
    return {**row, **changes}


def differential_rows(name: str, kinds: tuple[str, ...] = ("first", "difference")) -> list[dict[str, Any]]:
    return [
        {
            "clip_id": f"clip-{name}",
            "index": index,
            "kind": kind,
            "start_s": float(max(0, index - 1)),
            "end_s": float(index),
            "caption": f"{name} at frame {index}.",
            "frame_text_score": 0.25,
            "fallback": False,
            **by(),
        }
        for index, kind in enumerate(kinds)
    ]


def publish_tables(store: Store, shards: list[dict[str, list[dict[str, Any]]]]) -> StageRef:
    output = ShardSet(store, "dataset", "1", inputs=[repr(shards)], config=DatasetConfig(title="Squares"))
    for number, tables in enumerate(shards):
        output.commit(number, {name: table_from_rows(name, rows) for name, rows in tables.items()})
    return output.publish(len(shards)).ref


def publish_dataset(
    store: Store, folder: Path, names: tuple[str, ...] = ("red", "green", "blue"), shards: int = 2
) -> Published:
    """Publish one clip per colour with all roles, in several shards, and key frames in the other order."""
    source = folder / "source"
    source.mkdir(parents=True, exist_ok=True)
    parts: list[dict[str, list[dict[str, Any]]]] = [
        {"clips": [], "captions": [], "differentials": [], "rejects": []} for _ in range(shards)
    ]
    frames = []
    for number, name in enumerate(names):
        video = source / f"{name}.mp4"
        if not video.exists():
            write_video(video, name)
        part = parts[number % shards]
        part["clips"].append(clip_row(name, content_hash=content_hash(video)))
        part["captions"] += [
            caption_row(name, "fast", f"A {name} square, in one go."),
            caption_row(name, "prompt", f"{name} square"),
            caption_row(name, "summary", f'A "{name}" square, seen\nto move right.'),
        ]
        part["differentials"] += differential_rows(name)[::-1]
        frames += [
            {
                "clip_id": f"clip-{name}",
                "index": index,
                "timestamp_s": float(index),
                "similarity": None,
                "jpeg": jpeg(100 + 20 * number + index),
            }
            for index in range(2)
        ]
    output = ShardSet(store, "keyframes", "1", inputs=[repr(frames)], config=KeyframeConfig())
    output.commit(0, {"keyframes": table_from_rows("keyframes", frames[::-1])})
    return Published(publish_tables(store, parts), output.publish(1).ref, source)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
