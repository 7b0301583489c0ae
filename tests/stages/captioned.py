"""Clips with captions as the stages before the dataset publish them, from real mp4 files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from share4video.config import BriefConfig, CaptionConfig, DedupConfig, KeyframeConfig
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.media.probe import content_hash
from share4video.store import Store

ENGINE = "captioner@0123"
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "white": (240, 240, 240)}
SIDE = 48


@dataclass(frozen=True)
class Captioned:
    """References to what the stages published, and the folder of the videos."""

    clips: StageRef
    brief: StageRef
    keyframes: StageRef
    caption: StageRef
    source: Path


def write_video(path: Path, colour: str, seconds: int = 2, fps: int = 8) -> None:
    """Write a square of one colour that moves to the right.

    At this size x264 does not always give the same bytes.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 2 * SIDE, SIDE, "yuv420p"
        for number in range(seconds * fps):
            frame = np.full((SIDE, 2 * SIDE, 3), 90, np.uint8)
            frame[16:32, 2 * number : 2 * number + 16] = COLOURS[colour]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def publish_captioned(
    store: Store,
    folder: Path,
    colours: list[str],
    *,
    unsummarised: tuple[str, ...] = (),
    broken: tuple[str, ...] = (),
) -> Captioned:
    """Publish one clip per colour, with two differential captions, a summary and a brief sentence each.

    The files of those in ``broken`` are no videos. Videos that are in ``folder`` already are kept, so that
    what is published of one folder twice is the same.
    """
    source = folder / "source"
    source.mkdir(parents=True, exist_ok=True)
    for colour in colours:
        if colour in broken:
            (source / f"{colour}.mp4").write_text(f"not a {colour} video")
        elif not (source / f"{colour}.mp4").exists():
            write_video(source / f"{colour}.mp4", colour)
    clips = [_clip(colour, source) for colour in colours]
    differentials = [row for colour in colours for row in _differentials(colour)]
    captions = [_caption(colour) for colour in colours if colour not in unsummarised]
    briefs = [
        {"clip_id": f"clip-{c}", "caption": f"A {c} square moves.", "embedding": [1.0], "shift_s": None}
        for c in colours
    ]
    frames = [
        {"clip_id": f"clip-{c}", "index": i, "timestamp_s": i * 2.0, "similarity": None, "jpeg": b"x"}
        for c in colours
        for i in range(2)
    ]
    prompts = {"engine": ENGINE, "prompts": "sharecaptioner-1"}
    return Captioned(
        clips=_publish(store, "dedup", DedupConfig(), {"clips": clips}),
        brief=_publish(store, "brief", BriefConfig(), {"brief_captions": briefs}, prompts),
        keyframes=_publish(store, "keyframes", KeyframeConfig(), {"keyframes": frames}),
        caption=_publish(
            store, "caption", CaptionConfig(), {"differentials": differentials, "captions": captions}
        ),
        source=source,
    )


def _publish(
    store: Store,
    stage: str,
    config: Any,
    tables: dict[str, list[dict[str, Any]]],
    identity: dict[str, str] | None = None,
) -> StageRef:
    inputs = [hashlib.sha256(repr(tables).encode()).hexdigest()]  # a manifest holds no row
    output = ShardSet(store, stage, "1", inputs=inputs, config=config, identity=identity)
    output.commit(0, {name: table_from_rows(name, rows) for name, rows in tables.items()})
    return output.publish(1).ref


def _clip(colour: str, source: Path) -> dict[str, Any]:
    return {
        "clip_id": f"clip-{colour}",
        "row_id": f"row-{colour}",
        "source_uri": f"{colour}.mp4",
        "source_id": None,
        "content_hash": content_hash(source / f"{colour}.mp4"),
        "scene": None,
        "start_s": 0.0,
        "end_s": 2.0,
        "licence": "synthetic",
        "duration_s": 2.0,
        "fps": 8.0,
        "width": 2 * SIDE,
        "height": SIDE,
        "codec": "h264",
        "metadata": None,
    }


def _differentials(colour: str) -> list[dict[str, Any]]:
    texts = [f"A small {colour} square is on a grey background.", f"The {colour} square moves right."]
    rows = [
        {
            "clip_id": f"clip-{colour}",
            "index": index,
            "kind": ("first", "difference")[index],
            "start_s": 0.0,
            "end_s": 2.0 * index,
            "caption": text,
            "engine": ENGINE,
            "dialect": "sharecaptioner",
            "prompt_version": "sharecaptioner-1",
            "prompt_tokens": 90,
            "tokens": 9,
            "attempt": 0,
            "checks": [],
            "frame_text_score": None,
            "fallback": False,
        }
        for index, text in enumerate(texts)
    ]
    return rows[::-1]  # order in the table means nothing


def _caption(colour: str) -> dict[str, Any]:
    return {
        "clip_id": f"clip-{colour}",
        "start_s": 0.0,
        "end_s": 2.0,
        "role": "summary",
        "dialect": "sharecaptioner",
        "prompt_version": "sharecaptioner-1",
        "engine": ENGINE,
        "caption": f"A small {colour} square moves to the right.",
        "prompt_tokens": 90,
        "tokens": 9,
        "attempt": 0,
        "checks": ["repeats"] if colour == "white" else [],
    }
