"""Open-Sora-Plan's list of videos with captions: a JSON list of ``{"path", "cap", "resolution", ...}``.

The keys are those its ``T2V_dataset`` reads: ``path``, ``cap``, ``resolution`` with ``height`` and ``width``,
``num_frames``, ``fps``, ``cut`` (the first frame and the one after the last of a span of the file) and
``crop`` (left, right, top, bottom in pixels). Its trainer is given a text file with one line
``<folder of the videos>,<this file>`` per list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from share4video.dataset.formats.elements import list_chunks, list_elements
from share4video.dataset.formats.lines import Reject


@dataclass(frozen=True)
class Video:
    """A video, or the span of one from frame ``first_frame`` on; sizes and ``fps`` are 0 if not known."""

    path: str
    cap: str
    num_frames: int
    width: int
    height: int
    fps: float
    first_frame: int = 0


def chunks(videos: Iterable[Video]) -> Iterator[bytes]:
    """Yield the file's bytes; equal videos give equal bytes."""
    return list_chunks(map(_element, videos))


def read(path: Path) -> Iterator[Video | Reject]:
    """Yield one video or one reject (``wrong_shape``) per element; only ``path`` and ``cap`` must be there.

    Of several captions of a video the first is read.

    Raises:
        UserError: the file cannot be read, is no JSON list or breaks off.
    """
    for element in list_elements(path):
        yield element if isinstance(element, Reject) else _video(*element)


def _element(video: Video) -> dict[str, Any]:
    return {
        "path": video.path,
        "cap": video.cap,
        "resolution": {"height": video.height, "width": video.width},
        "num_frames": video.num_frames,
        "fps": video.fps,
        "cut": [video.first_frame, video.first_frame + video.num_frames],
        "crop": [0, video.width, 0, video.height],
    }


def _video(number: int, value: Any) -> Video | Reject:
    if not isinstance(value, dict):
        return Reject(number, "wrong_shape", "it is no JSON object")
    cap = value.get("cap")
    cap = cap[0] if isinstance(cap, list) and cap else cap
    if not isinstance(cap, str) or not cap.strip():
        return Reject(number, "wrong_shape", "cap is missing or no text")
    if not isinstance(value.get("path"), str) or not value["path"]:
        return Reject(number, "wrong_shape", "path is missing or no text")
    size, cut = value.get("resolution") or {}, value.get("cut") or [0]
    if not isinstance(size, dict) or not isinstance(cut, list):
        return Reject(number, "wrong_shape", "resolution is no object or cut no list")
    numbers = [value.get("num_frames", 0), size.get("width", 0), size.get("height", 0), cut[0]]
    if not all(type(number) is int and number >= 0 for number in numbers):
        return Reject(number, "wrong_shape", "frames or sizes are no whole numbers")
    fps = value.get("fps", 0.0)
    if type(fps) not in (int, float) or not 0 <= fps < float("inf"):
        return Reject(number, "wrong_shape", "fps is no number")
    frames, width, height, first = numbers
    return Video(value["path"], cap, frames, width, height, float(fps), first)
