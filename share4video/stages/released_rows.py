"""Records of a released caption file as rows of a dataset's tables."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from share4video.captioning.checks import EMPTY
from share4video.captioning.role_samples import NO_TIMESTAMP
from share4video.dataset.formats.lines import Reject
from share4video.dataset.formats.sharegpt4video import Record
from share4video.media.sources.lists import canonical
from share4video.media.sources.released import released_uri

Form = Literal["sharegpt4video", "share-captioner"]
Row = dict[str, Any]

# Who wrote the captions (paper section 3.3 and the release's card); the prompts were never released.
_ENGINES: dict[Form, str] = {
    "sharegpt4video": "gpt-4-turbo-2024-04-09",
    "share-captioner": "ShareCaptioner-Video",
}
_DIALECT = "released"
_PROMPTS = "not released"

NO_SUMMARY = ("no_summary", "the record has no caption of the whole video")
_ID_LENGTH = 32


class ReleasedRows:
    """The rows of one shard's tables, collected record by record.

    Attributes:
        notes: how often the reader mended something, by its code.
    """

    def __init__(self, form: Form) -> None:
        self.tables: dict[str, list[Row]] = {
            name: [] for name in ("clips", "captions", "differentials", "rejects")
        }
        self.notes: Counter[str] = Counter()
        self._by = {"engine": _ENGINES[form], "dialect": _DIALECT, "prompt_version": _PROMPTS}

    def reject(self, row: Row) -> None:
        self.tables["rejects"].append(row)

    def add(self, clip: Row, record: Record) -> None:
        """Add a clip with the record's captions. Who counted no tokens has 0 of them."""
        self.notes.update(record.notes)
        self.tables["clips"].append(clip)
        times_s = key_frame_times(record)
        for index, caption in enumerate(record.differentials):
            end_s = times_s[index] if times_s else 0.0
            start_s = times_s[index - 1] if times_s and index else end_s
            checks = [*([] if times_s else [NO_TIMESTAMP]), *([] if caption.content.strip() else [EMPTY])]
            self.tables["differentials"].append(
                {
                    "index": index,
                    "kind": "difference" if index else "first",
                    **self._answer(clip, start_s, end_s, caption.content, checks),
                    "frame_text_score": None,
                    "fallback": False,
                }
            )
            own = self._answer(clip, start_s, end_s, caption.content, checks)
            self.tables["captions"].append({"role": "sliding", **own})
        summary = self._answer(clip, clip["start_s"], clip["end_s"], record.summary or "", [])
        self.tables["captions"].append({"role": "summary", **summary})

    def _answer(self, clip: Row, start_s: float, end_s: float, caption: str, checks: list[str]) -> Row:
        counted = {"prompt_tokens": 0, "tokens": 0, "attempt": 0}
        span = {"clip_id": clip["clip_id"], "start_s": start_s, "end_s": end_s}
        return {**span, "caption": caption, "checks": checks, **counted, **self._by}


def key_frame_times(record: Record) -> Sequence[float]:
    """Return the time of each differential caption in seconds; none where the record does not tell them.

    There are as many times as captions, or a caption's ``idx`` is the number of its time. Times that do not
    ascend are none.
    """
    times = record.timestamps
    if len(times) != len(record.differentials):
        numbers = [caption.idx for caption in record.differentials]
        if not all(number.isdecimal() and int(number) < len(times) for number in numbers):
            return ()
        times = tuple(times[int(number)] for number in numbers)
    ascending = all(earlier < later for earlier, later in zip(times, times[1:], strict=False))
    return [float(time_s) for time_s in times] if ascending and all(time_s >= 0 for time_s in times) else ()


def text_clip(record: Record, licence: str) -> Row:
    """Return the clip of a record without its video. Empty and 0 is what only the video would tell.

    ``end_s`` is the last key frame's time, where it is known.
    """
    times_s = key_frame_times(record)
    facts = {"keyframe": record.keyframes, "timestamp": record.timestamps, "video_path": record.video_path}
    return {
        "clip_id": _digest(f"text\0{record.video_id}"),
        "row_id": _digest(f"line\0{record.number}"),
        "source_uri": released_uri(record) or record.video_id,
        "source_id": record.video_id,
        "content_hash": "",
        "scene": None,
        "start_s": 0.0,
        "end_s": times_s[-1] if times_s else 0.0,
        "licence": licence,
        "duration_s": 0.0,
        "fps": 0.0,
        "width": 0,
        "height": 0,
        "codec": "",
        "metadata": canonical(facts),
    }


def reject_line(why: Reject, form: Form, record: Record | None = None) -> Row:
    """Return the row of table ``rejects`` of a line or element."""
    return {
        "row_id": _digest(f"line\0{why.number}"),
        "source_uri": f"{form}:{why.number}" if record is None else released_uri(record) or record.video_id,
        "source_id": None if record is None else record.video_id,
        "clip_id": None,
        "stage": "dataset",
        "reason": why.reason,
        "sentence": f"record {why.number}: {why.sentence}",
        "measured": None,
        "bound": None,
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_LENGTH]
