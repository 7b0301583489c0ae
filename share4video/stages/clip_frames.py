"""Frames of many clips, decoded one clip ahead of the work done on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from share4video.curation.filters import scene_words
from share4video.media import decode
from share4video.media.decode import Frame
from share4video.media.limits import MediaError
from share4video.media.sources import clip_file

Row = Mapping[str, Any]


def clip_frames(
    clips: Sequence[Row], source: str, times_s: Callable[[Row], Sequence[float]], *, max_side: int
) -> Iterator[tuple[Row, list[Frame] | MediaError]]:
    """Yield each row of ``clips`` in turn with its frames, or with why it has none.

    While the caller works on one clip the next is decoded, in a child process; no more are held.

    Args:
        source: the sources the clips were found in.
        times_s: when a clip is looked at, in seconds of presentation time of its source.
        max_side: frames are scaled down so that no side is longer, in pixels.

    Raises:
        UserError: the source does not hold a clip as it was probed.
    """

    def decoded(clip: Row) -> list[Frame] | MediaError:
        try:
            with clip_file(source, clip) as path:
                return decode.frames_at(path, times_s(clip), max_side=max_side)
        except MediaError as error:
            return error

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as ahead:
        upcoming = ahead.submit(decoded, clips[0]) if clips else None
        for number, clip in enumerate(clips):
            assert upcoming is not None
            frames = upcoming.result()
            upcoming = ahead.submit(decoded, clips[number + 1]) if number + 1 < len(clips) else None
            yield clip, frames


def reject_row(
    clip: Row,
    stage: str,
    reason: str,
    sentence: str,
    measured: float | None = None,
    bound: float | None = None,
) -> dict[str, Any]:
    """Return the clip's row of table ``rejects``; the sentence tells apart the clips of one source."""
    if clip["start_s"] > 0:
        sentence = f"{sentence}, {scene_words(clip['start_s'], clip['end_s'])}"
    return {
        "row_id": clip["row_id"],
        "source_uri": clip["source_uri"],
        "source_id": clip["source_id"],
        "stage": stage,
        "reason": reason,
        "sentence": sentence,
        "measured": measured,
        "bound": bound,
    }


def media_reject(clip: Row, stage: str, error: MediaError) -> dict[str, Any]:
    """Return the row of table ``rejects`` of a clip that could not be decoded."""
    return reject_row(clip, stage, error.reason, error.sentence, error.measured, error.bound)
