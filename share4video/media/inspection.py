"""What a video is and whether it is whole. Runs in the guarded worker only (``guard.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from share4video.media import frame_source
from share4video.media.frame_source import Video, open_video
from share4video.media.limits import Limits, MediaError
from share4video.media.painter import Painter, Rgb

_BLACK_LUMA = 25.5  # a pixel is black below a tenth of full luma, a picture when 98 % of it is,
_BLACK_AREA = 0.98  # as in FFmpeg's blackdetect
_BLACK_SAMPLES = 8
_ENOUGH_KEY_FRAMES = 5  # from here on, key frames (which cost one decode each) stand for the clip
_BLACK_SIDE = 64
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


def inspect(path: str, limits: Limits, *, decode_up_to_s: float | None) -> dict[str, Any]:
    """Return container facts, exact duration and rate, and the share of black pictures.

    The first and the last frame are decoded among the samples, so a file that breaks off is found out.
    A video declared longer than ``decode_up_to_s`` seconds is described from its header alone, with
    ``black_share`` None.

    Raises:
        MediaError: the file is refused.
    """
    with open_video(path, limits) as video:
        facts = _facts(video)
        declared = facts.pop("declared_s")
        if decode_up_to_s is not None and declared is not None and declared > decode_up_to_s + 1:
            rate = float(video.stream.average_rate or 0)
            return {**facts, "duration_s": declared, "fps": rate, "frames": None, "black_share": None}
        timeline = read_timeline(video)
    samples = _sample_moments(timeline)
    first, last = int(timeline.shown[0]), int(timeline.shown[-1])
    moments = sorted({first, *samples, last})
    painter = Painter(_BLACK_SIDE)
    black, size, decoded = 0, (0, 0), first
    walk = frame_source.frames_on_show(path, limits, ticks=moments)
    for moment, (_, frame) in zip(moments, walk, strict=True):
        assert frame.pts is not None
        picture = painter.paint(frame)
        decoded, size = frame.pts, painter.shown_size(frame)
        black += moment in samples and _is_black(picture)
    missing_s = float((last - decoded) * timeline.time_base)
    if missing_s > max(_END_TOLERANCE_S, 3 / float(timeline.fps or 1)):
        end_s = float((last - first) * timeline.time_base)
        raise MediaError(
            "truncated",
            f"the last frame that decodes is at {end_s - missing_s:.2f} of {end_s:.2f} s",
            measured=end_s - missing_s,
            bound=end_s,
        )
    return {
        **facts,
        "width": size[0],
        "height": size[1],
        "duration_s": float(timeline.duration),
        "fps": float(timeline.fps),
        "frames": len(timeline.shown),
        "black_share": black / len(samples),
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
        "start_s": float((stream.start_time or 0) * video.time_base),
        "declared_s": declared,
    }


def _sample_moments(timeline: Timeline) -> set[int]:
    """Choose where to look for black: key frames spread over the clip, or even times where those are few."""
    first, last = int(timeline.shown[0]), int(timeline.shown[-1])
    even = [first + (last - first) * (2 * i + 1) // (2 * _BLACK_SAMPLES) for i in range(_BLACK_SAMPLES)]
    if not len(timeline.keys):
        return set(even)
    before = np.maximum(np.searchsorted(timeline.keys, even, "right") - 1, 0)
    nearest = {int(pts) for pts in timeline.keys[before]}
    return nearest if len(nearest) >= _ENOUGH_KEY_FRAMES else set(even)


def _is_black(picture: Rgb) -> bool:
    luma = picture @ np.array([0.299, 0.587, 0.114])
    return bool(np.mean(luma < _BLACK_LUMA) >= _BLACK_AREA)
