"""What a video is and whether it is whole. Runs in the guarded worker only (``guard.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from share4video.media import frame_source
from share4video.media.frame_source import Video, open_video
from share4video.media.limits import Limits, MediaError
from share4video.media.painter import Painter
from share4video.media.scores import SIDE, Scores

_SAMPLES = 8  # of a span
_ENOUGH_KEY_FRAMES = 5  # from here on, key frames (which cost one decode each) stand for the span
_CLOSELY_S = 0.25  # how often a span is looked at that seems to be frozen
_CLOSELY_SAMPLES = 512  # and how often at most
_UNKNOWN = dict.fromkeys(Scores.NAMES)
_DECLARE_DURATION = {
    "matroska,webm",
    "avi",
    "flv",
}  # in their headers; for others FFmpeg guesses it from the end
_MOST_TIMES = 1 << 18  # of frames in one answer: more than an hour's at 60 a second
_END_TOLERANCE_S = 0.5  # containers and decoders disagree by a few frames about the end


@dataclass(frozen=True)
class Timeline:
    """Presentation times of a stream's shown frames, in ticks, ascending; and where key frames are."""

    shown: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]
    end: int
    time_base: Fraction

    @property
    def duration(self) -> Fraction:
        return int(self.end - self.shown[0]) * self.time_base

    @property
    def fps(self) -> Fraction:
        """Mean frame rate; 0 for a single frame."""
        span = int(self.shown[-1] - self.shown[0]) * self.time_base
        return (len(self.shown) - 1) / span if span else Fraction(0)

    def divided(self, cuts: Sequence[int]) -> list[Timeline]:
        """Return the part from each cut to the next; cuts are times of shown frames, in ticks, ascending."""
        parts = []
        for begin, end in pairwise([int(self.shown[0]), *cuts, self.end]):
            inside = (self.shown >= begin) & (self.shown < end)
            keys = (self.keys >= begin) & (self.keys < end)
            parts.append(Timeline(self.shown[inside], self.keys[keys], end, self.time_base))
        return parts


def read_timeline(video: Video) -> Timeline:
    """Read every packet's times, decoding nothing.

    Raises:
        MediaError: there are none, the container is damaged, or it breaks off before what its header says.
    """
    shown: dict[int, int] = {}
    keys: list[int] = []
    packets, covered_s, started = 0, 0.0, False
    try:
        for packet in video.packets():
            if not packet.size or packet.pts is None:
                continue  # the empty packets that flush decoders
            covered_s = max(covered_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream is not video.stream:
                continue
            packets += 1
            started = started or packet.is_keyframe
            if started and not packet.is_discard:
                shown[packet.pts] = packet.duration or 0
                if packet.is_keyframe:
                    keys.append(packet.pts)
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        raise MediaError("unreadable", "the container is damaged") from error
    if not shown:
        raise MediaError("unreadable", "the video has no frames with presentation times")
    _refuse_missing_end(video, packets, covered_s)
    times = np.array(sorted(shown), np.int64)
    last = shown[int(times[-1])] or (int(np.median(np.diff(times))) if len(times) > 1 else 0)
    return Timeline(times, np.array(sorted(keys), np.int64), int(times[-1]) + last, video.time_base)


def _refuse_missing_end(video: Video, packets: int, covered_s: float) -> None:
    name, promised = video.container.format.name, video.stream.frames
    if name.startswith("mov,") and packets < promised:
        raise MediaError(
            "truncated",
            f"the file holds {packets} of its {promised} frames",
            measured=float(packets),
            bound=float(promised),
        )
    if name in _DECLARE_DURATION and video.container.duration is not None:
        declared_s = video.container.duration / av.time_base
        if covered_s < declared_s - _END_TOLERANCE_S:
            raise MediaError(
                "truncated",
                f"the file ends after {covered_s:.2f} of {declared_s:.2f} s",
                measured=covered_s,
                bound=declared_s,
            )


def inspect(
    path: str, limits: Limits, *, decode_up_to_s: float | None, cuts: Sequence[int] = ()
) -> dict[str, Any]:
    """Return container facts, and for each span its exact times and rate and its scores.

    The video is one span, or as many as ``cuts`` divide it into: the times, in ticks, of the frames with
    which the second and every later span begin. The first and the last frame are decoded among the samples,
    so a file that breaks off is found out. A video declared longer than ``decode_up_to_s`` seconds is
    described from its header alone, without scores.

    Raises:
        MediaError: the file is refused.
    """
    with open_video(path, limits) as video:
        facts = _facts(video)
        declared = facts.pop("declared_s")
        if decode_up_to_s is not None and declared is not None and declared > decode_up_to_s + 1:
            rate = float(video.stream.average_rate or 0)
            span = {"start_s": 0.0, "end_s": declared, "duration_s": declared, "fps": rate, "frames": None}
            return {**facts, "spans": [{**span, **_UNKNOWN}]}
        timeline = read_timeline(video)
    spans = timeline.divided(cuts)
    samples = [_sample_moments(span) for span in spans]
    first, last = int(timeline.shown[0]), int(timeline.shown[-1])
    scores, decoded, size = _look(path, limits, samples, frozenset({first, last}))
    missing_s = float((last - decoded) * timeline.time_base)
    if missing_s > max(_END_TOLERANCE_S, 3 / float(timeline.fps or 1)):
        end_s = float((last - first) * timeline.time_base)
        raise MediaError(
            "truncated",
            f"the last frame that decodes is at {end_s - missing_s:.2f} of {end_s:.2f} s",
            measured=end_s - missing_s,
            bound=end_s,
        )
    found = [{**_times(span, first), **score.facts()} for span, score in zip(spans, scores, strict=True)]
    still = [number for number, score in enumerate(scores) if score.frozen_share == 1]
    if still:  # or something came and went between two samples
        closer, _, _ = _look(path, limits, [_close_moments(spans[number]) for number in still])
        for number, score in zip(still, closer, strict=True):
            found[number]["frozen_share"] = score.frozen_share
    return {**facts, "width": size[0], "height": size[1], "spans": found}


def _look(
    path: str, limits: Limits, samples: Sequence[set[int]], also: frozenset[int] = frozenset()
) -> tuple[list[Scores], int, tuple[int, int]]:
    """Return each span's scores, and the time in ticks and the size of the last frame that was decoded.

    Args:
        samples: each span's moments, in ticks; a span's lie before those of the next.
        also: moments that are decoded, too.
    """
    scores = [Scores() for _ in samples]
    moments = sorted(also.union(*samples))
    painter = Painter(SIDE)
    decoded, size = moments[0], (0, 0)
    walk = frame_source.frames_on_show(path, limits, ticks=moments)
    for moment, shown in zip(moments, walk, strict=True):
        picture = painter.paint(shown.frame)
        decoded, size = frame_source.pts_of(shown.frame), painter.shown_size(shown.frame)
        for sampled, score in zip(samples, scores, strict=True):
            if moment in sampled:
                score.add(picture)
    return scores, decoded, size


def _times(span: Timeline, origin: int) -> dict[str, Any]:
    """Return a span's times in seconds after the tick ``origin``, its mean rate and its number of frames."""
    return {
        "start_s": float(int(span.shown[0] - origin) * span.time_base),
        "end_s": float((span.end - origin) * span.time_base),
        "duration_s": float(span.duration),
        "fps": float(span.fps),
        "frames": len(span.shown),
    }


def span_moments(path: str, limits: Limits, start_s: float | None, end_s: float | None) -> list[int]:
    """Return the presentation times, in ticks, of the frames shown from ``start_s`` until before ``end_s``.

    Seconds count from the first frame. Where no frame begins within the span, the one on show at its start
    stands for it.
    """
    with open_video(path, limits) as video:
        timeline = read_timeline(video)
    first, last = _span(timeline, start_s, end_s)
    return [int(pts) for pts in timeline.shown[first:last]]


def span_times(path: str, limits: Limits, start_s: float, end_s: float) -> dict[str, Any]:
    """Return the times of ``span_moments`` in seconds after the first frame, and the declared frame rate.

    Raises:
        MediaError: the file is refused, or the span holds more frames than one answer can.
    """
    with open_video(path, limits) as video:
        timeline, rate = read_timeline(video), video.stream.average_rate
    first, last = _span(timeline, start_s, end_s)
    if last - first > _MOST_TIMES:
        raise MediaError(
            "too_large",
            f"the span of {last - first} frames is over the {_MOST_TIMES} allowed",
            measured=float(last - first),
            bound=float(_MOST_TIMES),
        )
    origin = int(timeline.shown[0])
    times_s = [float((int(pts) - origin) * timeline.time_base) for pts in timeline.shown[first:last]]
    return {"times_s": times_s, "fps": float(rate or 0)}


def _span(timeline: Timeline, start_s: float | None, end_s: float | None) -> tuple[int, int]:
    """Return the numbers of the first frame of a span, and of the first one after it."""
    relative = timeline.shown - timeline.shown[0]
    forgiveness = Fraction(1, 1000)  # of a tick, as in Walker.ticks
    start = Fraction(start_s or 0.0) / timeline.time_base - forgiveness
    first = int(np.searchsorted(relative, float(start)))
    last = len(relative)
    if end_s is not None:
        last = int(np.searchsorted(relative, float(Fraction(end_s) / timeline.time_base - forgiveness)))
    if first >= last:
        first = max(0, min(first, len(relative)) - 1)
        last = first + 1
    return first, last


def _facts(video: Video) -> dict[str, Any]:
    stream, container = video.stream, video.container
    declared = None
    if stream.duration is not None:
        declared = float(stream.duration * video.time_base)
    elif container.duration is not None:
        declared = container.duration / av.time_base
    return {
        "container": container.format.name,
        "codec": stream.codec_context.codec.canonical_name,
        "pixel_format": stream.codec_context.pix_fmt or "",
        "width": stream.codec_context.width,
        "height": stream.codec_context.height,
        "has_audio": bool(container.streams.audio),
        "origin_s": float((stream.start_time or 0) * video.time_base),
        "declared_s": declared,
    }


def _sample_moments(span: Timeline) -> set[int]:
    """Choose where to look: key frames spread over the span, or even times where those are few."""
    first, last = int(span.shown[0]), int(span.shown[-1])
    even = [first + (last - first) * (2 * i + 1) // (2 * _SAMPLES) for i in range(_SAMPLES)]
    if not len(span.keys):
        return set(even)
    before = np.maximum(np.searchsorted(span.keys, even, "right") - 1, 0)
    nearest = {int(pts) for pts in span.keys[before]}
    return nearest if len(nearest) >= _ENOUGH_KEY_FRAMES else set(even)


def _close_moments(span: Timeline) -> set[int]:
    """Look often: at even times, so that little can come and go unseen."""
    first, last = int(span.shown[0]), int(span.shown[-1])
    step = max(int(_CLOSELY_S / span.time_base), -(-(last - first) // _CLOSELY_SAMPLES), 1)
    return {*range(first, last, step), last}
