"""The released caption file of ShareGPT4Video (``sharegpt4video_40k.jsonl``), read and written.

One JSON object per line::

    {"video_id", "video_path", "timestamp": [...], "keyframe": [...],
     "captions": [{"idx": "0", "content": ...}, ..., {"idx": "-1", "content": ...}], "zip_folder"}

``idx`` is a string and ``"-1"`` is the summary of the whole video, the last element. The released file does
not always keep its own rules; what can be mended is mended and noted on the record, the rest is a reject. The
types of ``timestamp`` and ``keyframe`` are documented nowhere: numbers, numbers as text and clock times are
read, and where they are anything else the captions are kept without them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from share4video.dataset.formats.lines import Reject, json_line, json_lines
from share4video.errors import UserError

SUMMARY_IDX = "-1"

# Damaged inside the released archives, though its captions are fine: (zip_folder, file name).
KNOWN_DAMAGED = frozenset({("panda_videos_11", "qek9AMGMhzE.mp4")})


@dataclass(frozen=True)
class Caption:
    """One caption; ``idx`` is the key frame's number as text, or ``SUMMARY_IDX``."""

    idx: str
    content: str


@dataclass(frozen=True)
class Record:
    """One video of the file.

    Attributes:
        video_path: path of the video; its last component is the file's name inside the archive.
        timestamps: seconds of the key frames, in the file's order.
        keyframes: the key frames' numbers.
        captions: differential captions in order, then the summary if there is one.
        zip_folder: the archive that holds the video; empty where the videos are not archived.
        notes: what the reader mended or found odd, as codes: ``no_summary``, ``summary_not_last``,
            ``idx_not_text``, ``number_as_text``, ``timestamp_unreadable``, ``keyframe_unreadable``,
            ``damaged_video``. Never written.
        number: of its line or element, from 1; 0 where it was not read.
    """

    video_id: str
    video_path: str
    timestamps: tuple[float, ...]
    keyframes: tuple[float, ...]
    captions: tuple[Caption, ...]
    zip_folder: str
    notes: tuple[str, ...] = ()
    number: int = field(default=0, compare=False)

    @property
    def summary(self) -> str | None:
        """The caption of the whole video."""
        return next((c.content for c in self.captions if c.idx == SUMMARY_IDX), None)

    @property
    def differentials(self) -> tuple[Caption, ...]:
        return tuple(c for c in self.captions if c.idx != SUMMARY_IDX)


def read(path: Path) -> Iterator[Record | Reject]:
    """Yield one record or one reject for every line that is not blank, in the file's order.

    Reasons are ``line_too_long``, ``not_json``, ``wrong_shape``, ``no_captions`` and ``duplicate_id``.

    Raises:
        UserError: the file cannot be opened.
    """
    try:
        reader = path.open("rb")
    except OSError as error:
        raise UserError(
            f"cannot read the caption file: {error.strerror}", where=str(path), fix="check the path"
        ) from error
    seen: set[str] = set()
    with reader:
        for line in json_lines(reader):
            found = line if isinstance(line, Reject) else record(*line)
            if isinstance(found, Record) and found.video_id in seen:
                found = Reject(found.number, "duplicate_id", f"video_id {found.video_id!r} came before")
            if isinstance(found, Record):
                seen.add(found.video_id)
            yield found


def encode(record: Record) -> bytes:
    """Return the record's line, newline included; equal records give equal bytes.

    Raises:
        ValueError: the summary is not the last caption, or a number is not finite.
    """
    if SUMMARY_IDX in [caption.idx for caption in record.captions[:-1]]:
        raise ValueError(f"{record.video_id}: the summary must be the last caption, and there is one at most")
    fields = {
        "video_id": record.video_id,
        "video_path": record.video_path,
        "timestamp": list(record.timestamps),
        "keyframe": list(record.keyframes),
        "captions": [{"idx": caption.idx, "content": caption.content} for caption in record.captions],
        "zip_folder": record.zip_folder,
    }
    return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode() + b"\n"


class _Malformed(Exception):
    """Why a line is no record; its text is the reject's sentence."""


def parse(line: bytes, number: int) -> Record | Reject:
    """Return what a line says, or why it is no record."""
    found = json_line(line, number)
    return found if isinstance(found, Reject) else record(*found)


def record(number: int, value: Any) -> Record | Reject:
    """Return what the value of a line says, or why it is no record."""
    try:
        found = _record(number, value)
    except _Malformed as error:
        return Reject(number, "wrong_shape", str(error))
    if not any(caption.content.strip() for caption in found.captions):
        return Reject(number, "no_captions", f"video_id {found.video_id!r} has no caption with text")
    return found


def _record(number: int, value: Any) -> Record:
    if not isinstance(value, dict):
        raise _Malformed("it is no JSON object")
    notes: set[str] = set()
    captions = [_caption(item, notes) for item in _list(value, "captions")]
    summaries = [caption for caption in captions if caption.idx == SUMMARY_IDX]
    if len(summaries) > 1:
        raise _Malformed('there is more than one caption with idx "-1"')
    if not summaries:
        notes.add("no_summary")
    elif captions[-1].idx != SUMMARY_IDX:
        notes.add("summary_not_last")
    differentials = [caption for caption in captions if caption.idx != SUMMARY_IDX]
    video_path, zip_folder = _text(value, "video_path"), _text(value, "zip_folder")
    if (zip_folder.removesuffix(".zip"), video_path.rpartition("/")[2]) in KNOWN_DAMAGED:
        notes.add("damaged_video")
    return Record(
        video_id=_text(value, "video_id"),
        video_path=video_path,
        timestamps=_numbers(value, "timestamp", notes),
        keyframes=_numbers(value, "keyframe", notes),
        captions=(*differentials, *summaries),
        zip_folder=zip_folder,
        notes=tuple(sorted(notes)),
        number=number,
    )


def _caption(item: Any, notes: set[str]) -> Caption:
    if not isinstance(item, dict):
        raise _Malformed("an element of captions is no object")
    idx = item.get("idx")
    if isinstance(idx, int) and not isinstance(idx, bool):
        notes.add("idx_not_text")
        idx = str(idx)
    if not isinstance(idx, str):
        raise _Malformed("a caption has no idx")
    return Caption(idx=idx, content=_text(item, "content"))


def _text(value: dict[str, Any], field: str) -> str:
    text = value.get(field)
    if not isinstance(text, str):
        raise _Malformed(f"{field} is missing or no text")
    return text


def _list(value: dict[str, Any], field: str) -> list[Any]:
    items = value.get(field)
    if not isinstance(items, list):
        raise _Malformed(f"{field} is missing or no list")
    return items


def _numbers(value: dict[str, Any], name: str, notes: set[str]) -> tuple[float, ...]:
    """Return key frames' numbers or times; whole numbers stay ``int``, to be written as they were."""
    items = value.get(name)
    numbers = [_number(item, notes) for item in items] if isinstance(items, list) else [None]
    if None in numbers:
        notes.add(f"{name}_unreadable")
        return ()
    return tuple(number for number in numbers if number is not None)


def _number(item: Any, notes: set[str]) -> float | None:
    if isinstance(item, str):
        notes.add("number_as_text")
        item = _seconds(item)
    if isinstance(item, bool) or not isinstance(item, int | float) or not math.isfinite(item):
        return None
    return item


def _seconds(text: str) -> float | None:
    """Read a number, or a clock time such as ``00:01:02.5``, as seconds."""
    try:
        total = 0.0
        for part in text.split(":"):
            total = total * 60 + float(part)
    except ValueError:
        return None
    return total
