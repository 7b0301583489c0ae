"""Open a video and walk its frames by presentation time. Runs in the guarded worker only (``guard.py``).

Decoding is strict: a packet the decoder refuses ends the call, since what would follow differs from what the
file shows. Files open through a descriptor, so that neither their name nor their content can make FFmpeg
open anything else, and only container formats are tried.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from share4video.media.boxes import refuse_truncated
from share4video.media.limits import Limits, MediaError

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"
_MP4, _MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"  # FFmpeg seeks these by an index of key frames
_SEEK_GAIN_S = 0.5  # a seek pays when it skips at least this much decoding
_ROUNDING = 8  # units in the last place a time may lack, so that a time once reported finds its frame again


class IndexLies(Exception):
    """A seek landed behind its target or among frames it cannot decode: read the file in order."""


Moment = int | Fraction  # in ticks of the stream, not relative to its start


class Shown(NamedTuple):
    """A frame that answers for a moment; times are in seconds after the first frame."""

    asked_s: float
    time_s: float
    frame: VideoFrame


@dataclass(frozen=True)
class Clock:
    """Seconds after the first frame, and ticks of the stream: the first frame comes on show at ``origin``."""

    origin: int
    time_base: Fraction

    def ticks(self, time_s: float) -> Fraction:
        """Return ``time_s`` in ticks, and parts of a tick."""
        return self.origin + Fraction(time_s + _ROUNDING * math.ulp(time_s)) / self.time_base

    def seconds(self, pts: Moment) -> float:
        return float((pts - self.origin) * self.time_base)


class Finder(Protocol):
    """Finds the frame that answers for a time, for times that do not decrease."""

    clock: Clock

    def at(self, moment: Moment) -> VideoFrame:
        """Return the frame for ``moment``. Raises IndexLies where the file is to be read in order instead."""


class Video:
    """One open container and the video stream in it. Made by ``open_video``."""

    def __init__(self, container: InputContainer, stream: VideoStream, limits: Limits) -> None:
        assert stream.time_base is not None
        self.container, self.stream, self.limits = container, stream, limits
        self.time_base: Fraction = stream.time_base

    def packets(self, *streams: Stream) -> Iterator[Packet[Any]]:
        """Yield the packets of ``streams`` (all: none given), and at the end one empty packet for each.

        Streams that first appear midway are passed over. PyAV stumbles over them when it comes to their
        empty packets; by then it has yielded those of the streams known from the start.
        """
        try:
            yield from self.container.demux(streams or tuple(self.container.streams))
        except IndexError:
            return

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the frames from the current position on, in presentation order.

        Raises:
            MediaError: a packet cannot be decoded, a picture is over the pixel limit, or the stream carries
                no presentation times.
        """
        latest: int | None = None
        started = False
        try:
            for packet in self.packets(self.stream):
                started = started or packet.is_keyframe
                if not started and packet.size:
                    continue  # it refers to pictures that are not in the file
                for frame in self.stream.decode(packet):
                    if frame.pts is None:
                        raise MediaError("unreadable", "the video has no presentation times")
                    if frame.is_corrupt:
                        raise self._damage(latest)
                    self.check_pixels(frame.width, frame.height)
                    if latest is not None and frame.pts < latest:
                        continue  # a frame from before the one on show is never shown
                    latest = frame.pts
                    yield frame
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            raise self._damage(latest) from error

    def _damage(self, latest: int | None) -> MediaError:
        if latest is None:
            return MediaError("unreadable", "no frame of the video can be decoded")
        time_s = float((latest - (self.stream.start_time or 0)) * self.time_base)
        return MediaError("unreadable", f"the video is damaged after {time_s:.2f} s", measured=time_s)

    def check_pixels(self, width: int, height: int) -> None:
        if width * height > self.limits.max_pixels:
            raise MediaError(
                "too_large",
                f"pictures of {width} x {height} are over the {self.limits.max_pixels} pixels allowed",
                measured=float(width * height),
                bound=float(self.limits.max_pixels),
            )


@contextmanager
def open_video(path: str, limits: Limits) -> Iterator[Video]:
    """Open the main video stream of a file with bounded threads.

    Raises:
        MediaError: the file cannot be read, was cut short, or holds no video in a container known here.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; a with would hide OSErrors of the decoder
    except OSError as error:
        raise MediaError("unreadable", f"the file cannot be read: {error.strerror}") from error
    with file:
        refuse_truncated(file)
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        try:
            container = av.open(
                f"file:/dev/fd/{file.fileno()}", mode="r", options=options, metadata_errors="replace"
            )
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            raise MediaError("not_video", "the file is not a video in a known container") from error
        with container:
            yield _video(container, limits)


def _video(container: InputContainer, limits: Limits) -> Video:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise MediaError("not_video", "the file holds no video stream")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in streams else streams[0]
    if getattr(stream, "codec_context", None) is None:
        raise MediaError("unreadable", "there is no decoder for the video's codec")
    video = Video(container, stream, limits)
    video.check_pixels(stream.codec_context.width, stream.codec_context.height)
    # The header may lie: the codec holds every picture against twice the bound before it allocates it.
    # By default decoders paint over damage; told to explode they report it.
    stream.codec_context.options = {"max_pixels": str(2 * limits.max_pixels), "err_detect": "explode"}
    stream.thread_count = limits.threads
    stream.thread_type = "SLICE"  # frame threads decode a damaged file differently from run to run
    return video


class Walker:
    """Finds the frame on show at a time, for times that do not decrease.

    The frame on show at ``t`` is the last one whose presentation time is at most ``t``; before the first
    frame it is the first. Frames between two wanted ones are decoded, unless a key frame lies so far ahead
    that jumping to it is cheaper; wherever the walk jumps, it ends at the same frame.

    Args:
        keys: where to jump to (``indexed_keys``).
    """

    def __init__(self, video: Video, keys: Sequence[int] = ()) -> None:
        self.video = video
        self._keys = keys
        self._frames = video.frames()
        self._shown = first_frame(self._frames)
        self._ahead = next(self._frames, None)
        self._step = 0  # from the frame before to the one on show, in ticks
        self.clock = Clock(pts_of(self._shown), video.time_base)

    def at(self, moment: Moment) -> VideoFrame:
        """Return the frame on show at ``moment``."""
        pts = math.floor(moment)
        if self._ahead is not None and pts_of(self._ahead) <= pts and self._seek_pays(pts):
            self._seek(pts)
        while self._ahead is not None and pts_of(self._ahead) <= pts:
            self._step = pts_of(self._ahead) - pts_of(self._shown)
            self._shown, self._ahead = self._ahead, next(self._frames, None)
        return self._shown

    def is_over(self, moment: Moment) -> bool:
        """Return whether the video has ended by ``moment``, for which ``at`` was asked last."""
        shown_for = self._shown.duration or self._step
        return self._ahead is None and moment >= pts_of(self._shown) + shown_for

    def _seek_pays(self, pts: int) -> bool:
        before = bisect.bisect_right(self._keys, pts)
        if before == 0:
            return False
        gain = (self._keys[before - 1] - pts_of(self._shown)) * self.video.time_base
        return gain >= _SEEK_GAIN_S

    def _seek(self, pts: int) -> None:
        try:
            for target in landings(self._keys, pts):
                self.video.container.seek(target, stream=self.video.stream)
                self._frames = self.video.frames()
                # Frames shown before the key frame refer to pictures that were jumped over.
                landed = next((frame for frame in self._frames if frame.key_frame), None)
                if landed is not None and pts_of(landed) <= pts:
                    self._shown, self._ahead = landed, next(self._frames, None)
                    return
        except (MediaError, av.error.FFmpegError):
            pass  # read in order, the same frames may well decode
        raise IndexLies


def landings(keys: Sequence[int], pts: int) -> list[int]:
    """Return where to seek, first choice first, for the last key frame that is on show by ``pts``.

    A key frame that is decoded by then may come on show after it; then it is one of those before.
    """
    return [pts, *reversed(keys[: bisect.bisect_right(keys, pts)][-3:-1])]


def first_frame(frames: Iterator[VideoFrame]) -> VideoFrame:
    """Return the first of ``frames``. Raises MediaError where there is none."""
    first = next(frames, None)
    if first is None:
        raise MediaError("unreadable", "no frame of the video can be decoded")
    return first


def pts_of(frame: VideoFrame) -> int:
    """Return the presentation time, in ticks, of a frame that ``Video.frames`` yielded."""
    assert frame.pts is not None  # it yields no other
    return frame.pts


def indexed_keys(path: str, limits: Limits) -> list[int]:
    """Return the times of the key frames in the container's index, ascending, in ticks of the stream.

    MP4's are decoding times, a few frames before the key frame comes on show. Formats without an index, and
    files without one, give none.
    """
    with open_video(path, limits) as video:
        name = video.container.format.name
        if name not in (_MP4, _MATROSKA):
            return []
        if name == _MATROSKA:  # its index is often at the end, where FFmpeg reads it when it first seeks
            try:
                video.container.seek(0, stream=video.stream)
            except av.error.FFmpegError:
                return []
        entries = video.stream.index_entries
        return sorted(entry.timestamp for entry in entries if entry.is_keyframe and not entry.is_discard)


def frames_on_show(
    path: str, limits: Limits, *, times_s: Sequence[float] = (), ticks: Sequence[int] = ()
) -> Iterator[Shown]:
    """Yield the frame on show at each moment asked for; moments must not decrease.

    Moments are in seconds after the first frame, or in ticks of the stream. One frame is held at a time.
    """
    yield from find(Walker, path, limits, times_s=times_s, ticks=ticks)


def frames_every(path: str, limits: Limits, interval_s: float) -> Iterator[Shown]:
    """Yield the frame on show every ``interval_s`` seconds from the first on until the video ends, each once.

    Nothing is known of the length beforehand: frames come while the file is read. One is held at a time.
    """
    done = 0
    latest: int | None = None
    for keys in (indexed_keys(path, limits), []):
        try:
            with open_video(path, limits) as video:
                walker = Walker(video, keys)
                while True:
                    moment = walker.clock.ticks(done * interval_s)
                    frame = walker.at(moment)
                    if done and walker.is_over(moment):
                        return
                    if pts_of(frame) != latest:
                        latest = pts_of(frame)
                        yield Shown(done * interval_s, walker.clock.seconds(latest), frame)
                    done += 1
        except IndexLies:
            assert keys, "a walk in order does not seek"


def find(
    finder: Callable[[Video, Sequence[int]], Finder],
    path: str,
    limits: Limits,
    *,
    times_s: Sequence[float] = (),
    ticks: Sequence[int] = (),
) -> Iterator[Shown]:
    """Yield what a finder finds for each moment; where it meets an index that lies, one without goes on.

    Args:
        finder: makes one from an open video and the times of its key frames (``indexed_keys``), or none.
    """
    done = 0
    for keys in (indexed_keys(path, limits), []):
        try:
            with open_video(path, limits) as video:
                found = finder(video, keys)
                clock = found.clock
                moments: Sequence[Moment] = ticks or [clock.ticks(time_s) for time_s in times_s]
                while done < len(moments):
                    frame = found.at(moments[done])
                    asked_s = times_s[done] if times_s else clock.seconds(moments[done])
                    yield Shown(asked_s, clock.seconds(pts_of(frame)), frame)
                    done += 1
            return
        except IndexLies:
            assert keys, "a walk in order does not seek"
