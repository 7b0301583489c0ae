"""Frames through decord, for plain files alone. Runs in the guarded worker only (``guard.py``).

Decord 0.6 says nothing where it is wrong: it counts frames that an edit list leaves out, loses its place when
it seeks into open groups of pictures, and knows no AV1. So a file is held against its container first, and
then read in order, never by seeking.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from share4video.media.frame_source import Clock, Moment, Shown, Video, first_frame, open_video
from share4video.media.inspection import Timeline, read_timeline
from share4video.media.limits import Limits, MediaError
from share4video.media.painter import is_upright

_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_PLAIN_COLOURS = (1, 2, 5, 6)  # AVColorSpace: BT.709, none named, and both BT.601


def load() -> Any:
    """Import decord, silenced, and return it."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    return decord


def frames_on_show(
    path: str, limits: Limits, *, times_s: Sequence[float] = (), ticks: Sequence[int] = ()
) -> Iterator[Shown]:
    """Yield the frame on show at each moment, as ``frame_source.frames_on_show``; pictures are RGB already.

    Raises:
        MediaError: the file is damaged, or (``not_for_decord``) not one that decord shows as it is.
    """
    decord = load()
    with open_video(path, limits) as video:
        timeline = read_timeline(video)
        refuse_unusual(video, timeline)
    with open_video(path, limits) as video:
        if not is_upright(first_frame(video.frames())):
            raise _refusal("the video is to be shown turned")
    clock = Clock(int(timeline.shown[0]), timeline.time_base)
    moments: Sequence[Moment] = ticks or [clock.ticks(time_s) for time_s in times_s]
    indices = np.maximum(np.searchsorted(timeline.shown, [math.floor(m) for m in moments], "right") - 1, 0)
    with open(path, "rb") as file:
        try:
            reader = decord.VideoReader(
                f"/dev/fd/{file.fileno()}", ctx=decord.cpu(0), num_threads=limits.threads
            )
            count = len(reader)
            starts = reader.get_frame_timestamp(range(count))[:, 0] if count else np.empty(0)
            refuse_disagreement(timeline, starts)
            position, picture = 0, None
            for number, index in enumerate(int(index) for index in indices):
                while position <= index:  # skip_frames would seek
                    picture = reader.next()
                    position += 1
                assert picture is not None
                asked_s = times_s[number] if times_s else clock.seconds(moments[number])
                frame = VideoFrame.from_ndarray(picture.asnumpy(), format="rgb24")
                yield Shown(asked_s, clock.seconds(int(timeline.shown[index])), frame)
        except (decord.DECORDError, StopIteration) as error:
            raise _refusal("decord cannot decode the video") from error


def refuse_unusual(video: Video, timeline: Timeline) -> None:
    """Refuse what decord is known to get wrong: other containers, deep or unusual colours, variable rates."""
    codec = video.stream.codec_context
    if len(video.container.streams.video) > 1:
        raise _refusal("the file holds several video streams")
    if video.container.format.name not in _CONTAINERS:
        raise _refusal("the container is neither MP4 nor Matroska")
    if codec.format is None or any(part.bits != 8 for part in codec.format.components):
        raise _refusal(f"pictures are {codec.pix_fmt}, not of 8 bits")
    if codec.colorspace not in _PLAIN_COLOURS:
        raise _refusal("its colours are neither BT.601 nor BT.709")
    shown, span = timeline.shown, int(timeline.shown[-1] - timeline.shown[0])
    steady = timeline.shown[0] + np.linspace(0, span, len(shown))
    off, frame = float(np.abs(shown - steady).max()), span / max(1, len(shown) - 1)
    if off > frame / 2:
        raise _refusal("the frame rate is not constant", measured=off / frame, bound=0.5)


def refuse_disagreement(timeline: Timeline, starts_s: npt.NDArray[np.floating[Any]]) -> None:
    """Refuse a file of which decord counts other frames, or shows one half a frame early or late."""
    if len(starts_s) != len(timeline.shown):
        raise _refusal(
            f"decord counts {len(starts_s)} frames where {len(timeline.shown)} are shown",
            measured=float(len(starts_s)),
            bound=float(len(timeline.shown)),
        )
    expected_s = (timeline.shown - timeline.shown[0]) * float(timeline.time_base)
    off_s = float(np.abs(starts_s - starts_s[0] - expected_s).max())
    bound_s = 0.5 / float(timeline.fps) if timeline.fps else 0.0
    if not off_s <= bound_s:  # also where it is no number
        raise _refusal("decord shows a frame at another time", measured=off_s, bound=bound_s)


def _refusal(sentence: str, *, measured: float | None = None, bound: float | None = None) -> MediaError:
    return MediaError("not_for_decord", sentence, measured=measured, bound=bound)
