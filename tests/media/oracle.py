"""What a whole file shows, by the plainest reading there is: one thread, from start to end, no seeking."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from pathlib import Path

import av

from tests.media.clips import Rgb


def read_in_order(path: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield (seconds after the first frame, frame) for every frame, as decoded."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        origin: int | None = None
        for frame in container.decode(stream):
            origin = frame.pts if origin is None else origin
            yield float((frame.pts - origin) * stream.time_base), frame


def frame_times(path: Path) -> tuple[list[float], list[float]]:
    """Return when each frame comes on show, and when each key frame does."""
    shown = [(time_s, frame.key_frame) for time_s, frame in read_in_order(path)]
    return [time_s for time_s, _ in shown], [time_s for time_s, is_key in shown if is_key]


def pictures(
    path: Path, shown_s: Sequence[float], asked_s: Sequence[float]
) -> dict[float, tuple[float, Rgb]]:
    """Return (when it came on show, RGB as stored) of the frame on show at each moment, by moment.

    Args:
        shown_s: the file's ``frame_times``.
    """
    on_show = {time_s: bisect.bisect_right(shown_s, time_s) - 1 for time_s in asked_s}
    wanted = set(on_show.values())
    found = {
        number: (time_s, frame.to_ndarray(format="rgb24"))
        for number, (time_s, frame) in enumerate(read_in_order(path))
        if number in wanted
    }
    return {time_s: found[number] for time_s, number in on_show.items()}
