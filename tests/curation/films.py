"""Real mp4 files of synthetic clips, and the tables an earlier stage would have published about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from share4video.config import BriefConfig, Config
from share4video.curation.encoders import HashingEncoder
from share4video.dataset.shards import ShardSet, StageRef, empty_table, table_from_rows
from share4video.media.probe import probe
from share4video.store import Store
from share4video.synthetic.language import brief_caption
from share4video.synthetic.render import render
from share4video.synthetic.world import Clip, State

Rgb = npt.NDArray[np.uint8]
FPS = 8


def write_film(path: Path, frames: Iterable[Rgb], *, fps: int = FPS, crf: int = 23) -> Path:
    """Encode frames as H.264 mp4."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": str(crf)})
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for index, frame in enumerate(frames):
            if index == 0:
                stream.height, stream.width = frame.shape[:2]
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def rendered(clip: Clip, *, fps: int = FPS) -> list[Rgb]:
    return [render(clip, index / fps) for index in range(int(clip.duration_s * fps))]


def cropped(frames: Sequence[Rgb], pixels: int) -> list[Rgb]:
    """Cut ``pixels`` from every edge and scale back up."""
    height, width = frames[0].shape[:2]
    box = (pixels, pixels, width - pixels, height - pixels)
    return [
        np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC, box=box))
        for frame in frames
    ]


def brighter(frames: Sequence[Rgb], factor: float) -> list[Rgb]:
    return [np.clip(frame * factor, 0, 255).astype(np.uint8) for frame in frames]


def states(clip: Clip, count: int = 4) -> list[State]:
    return [clip.state_at(clip.duration_s * (part + 0.5) / count) for part in range(count)]


def clip_row(path: Path, root: Path, **changes: Any) -> dict[str, Any]:
    """Return the row of table ``clips`` that a whole file makes."""
    info = probe(path)
    uri = path.relative_to(root).as_posix()
    return {
        "clip_id": info.content_hash[:32],
        "row_id": uri,
        "source_uri": uri,
        "source_id": None,
        "content_hash": info.content_hash,
        "scene": None,
        "start_s": 0.0,
        "end_s": info.duration_s,
        "licence": "unknown",
        "duration_s": info.duration_s,
        "fps": info.fps,
        "width": info.width,
        "height": info.height,
        "codec": info.codec,
        "metadata": None,
        **changes,
    }


def publish_clips(store: Store, rows: Sequence[dict[str, Any]]) -> StageRef:
    """Publish table ``clips`` as the probe stage does."""
    output = ShardSet(
        store,
        "probe",
        "test",
        inputs=[row["source_uri"] + row["content_hash"] for row in rows],
        config=Config(),
    )
    output.commit(0, {"clips": table_from_rows("clips", rows), "rejects": empty_table("rejects")})
    return output.publish(1).ref


def publish_captions(
    store: Store, clips: StageRef, captions: dict[str, str], rejects: Sequence[dict[str, Any]] = ()
) -> StageRef:
    """Publish table ``brief_captions``, by clip, and the ``rejects`` as the brief stage does."""
    texts = list(captions.values())
    rows = [
        {"clip_id": clip_id, "caption": text, "embedding": vector.tolist(), "shift_s": None}
        for clip_id, text, vector in zip(captions, texts, HashingEncoder().encode(texts), strict=True)
    ]
    output = ShardSet(store, "brief", "test", inputs=[clips.content_hash, *texts], config=BriefConfig())
    tables = {"brief_captions": rows, "rejects": rejects}
    output.commit(0, {name: table_from_rows(name, held) for name, held in tables.items()})
    return output.publish(1).ref


def caption_of(clip: Clip) -> str:
    return brief_caption(states(clip))
