"""The codec key frame nearest to a time, decoded alone. Runs in the guarded worker only (``guard.py``).

Key frames need no other, so a clip whose groups of pictures are 250 frames long costs one decoded frame in
250. Only those the file shows count: not those an edit list leaves out.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av.error
from av.packet import Packet
from av.video.frame import VideoFrame

from share4video.media.frame_source import (
    Clock,
    IndexLies,
    Moment,
    Shown,
    Video,
    find,
    first_frame,
    frames_on_show,
    landings,
    open_video,
    pts_of,
)
from share4video.media.limits import Limits, MediaError

_FORGIVENESS = Fraction(1, 1000)  # of a tick: what rounding may have added to a time


class _NoKeyFrame(Exception):
    """There is no key frame in the span, or one that cannot be shown without the frames before it."""


def nearest_key_frames(
    path: str,
    limits: Limits,
    *,
    times_s: Sequence[float] = (),
    ticks: Sequence[int] = (),
    span_s: tuple[float | None, float | None] = (None, None),
) -> Iterator[Shown]:
    """Yield the key frame nearest to each moment, the earlier of two; moments must not decrease.

    Where the span has no key frame, or one that does not decode alone (a decoder refresh spread over several
    frames, an index that lies), the remaining moments are answered with the frame on show.

    Args:
        span_s: only key frames that come on show from its start until before its end are taken.
    """
    with open_video(path, limits) as video:
        clock = Clock(pts_of(first_frame(video.frames())), video.time_base)
    done = 0
    try:
        for shown in find(
            lambda video, keys: _KeyWalker(video, keys, clock, span_s),
            path,
            limits,
            times_s=times_s,
            ticks=ticks,
        ):
            yield shown
            done += 1
    except _NoKeyFrame:
        yield from frames_on_show(path, limits, times_s=times_s[done:], ticks=ticks[done:])


class _KeyWalker:
    """Finds the key frame nearest to a time, for times that do not decrease.

    Packets are read, and only key frames that are wanted are decoded. Where the index has a key frame between
    here and there, the packets before it are not even read.
    """

    def __init__(
        self, video: Video, keys: Sequence[int], clock: Clock, span_s: tuple[float | None, float | None]
    ) -> None:
        self.video, self.clock = video, clock
        self._index = keys
        start, end = (_bound(clock, time_s) for time_s in span_s)
        self._first: float = -math.inf if start is None else start
        self._end: float = math.inf if end is None else end
        self._keys = self._key_packets()
        self._before: Packet[Any] | None = None
        self._after: Packet[Any] | None = None
        self._started = False
        self._decoded: VideoFrame | None = None

    def at(self, moment: Moment) -> VideoFrame:
        """Return the key frame nearest to ``moment``. Raises _NoKeyFrame."""
        target = math.floor(max(moment, self._first))
        if self._jump_pays(target):
            self._jump(target)
        elif not self._started:
            self._after = next(self._keys, None)
        self._started = True
        while self._after is not None and _pts(self._after) <= moment:
            self._before, self._after = self._after, next(self._keys, None)
        return self._frame(self._nearer(moment))

    def _nearer(self, moment: Moment) -> Packet[Any]:
        """Return the key frame before ``moment`` or the one after it; of two as near the one before."""
        if self._before is not None and self._after is not None:
            sooner, later = moment - _pts(self._before), _pts(self._after) - moment
            return self._before if sooner <= later + 2 * _FORGIVENESS else self._after
        if self._before is not None:
            return self._before
        if self._after is not None:
            return self._after
        raise _NoKeyFrame

    def _jump_pays(self, target: int) -> bool:
        known = bisect.bisect_right(self._index, target)
        if known == 0 or (self._started and self._after is None):
            return False
        here = _pts(self._after) if self._after is not None else self.clock.origin
        return self._index[known - 1] > here

    def _jump(self, target: int) -> None:
        for landing in landings(self._index, target):
            try:
                self.video.container.seek(landing, stream=self.video.stream)
                self._keys = self._key_packets(landed_by=target)
                self._before, self._after = None, next(self._keys, None)
                return
            except (IndexLies, MediaError, av.error.FFmpegError):
                continue
        raise IndexLies

    def _key_packets(self, *, landed_by: int | None = None) -> Iterator[Packet[Any]]:
        """Yield the key frames' packets from here on. After a seek the first is on show by ``landed_by``."""
        latest = -math.inf
        try:
            for packet in self.video.packets(self.video.stream):
                if not packet.is_keyframe or packet.is_discard or packet.pts is None or not packet.size:
                    continue
                if landed_by is not None and latest == -math.inf and packet.pts > landed_by:
                    raise IndexLies
                if packet.pts <= latest:
                    continue  # what is from before the frame on show is never shown
                latest = packet.pts
                if packet.pts >= self._end:
                    return
                if packet.pts >= self._first:
                    yield packet
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            raise MediaError("unreadable", "the container is damaged") from error
        if landed_by is not None and latest == -math.inf:
            raise IndexLies

    def _frame(self, packet: Packet[Any]) -> VideoFrame:
        if self._decoded is None or self._decoded.pts != packet.pts:
            self._decoded = self._decode(packet)
        return self._decoded

    def _decode(self, packet: Packet[Any]) -> VideoFrame:
        """Decode a key frame by itself. Raises _NoKeyFrame where it is none, or damaged: a walk will tell."""
        stream = self.video.stream
        try:
            frames = [*stream.decode(packet), *stream.decode(None)]
            stream.codec_context.flush_buffers()
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            raise _NoKeyFrame from error
        if len(frames) != 1 or not frames[0].key_frame or frames[0].is_corrupt or frames[0].pts != packet.pts:
            raise _NoKeyFrame
        self.video.check_pixels(frames[0].width, frames[0].height)
        return frames[0]


def _bound(clock: Clock, time_s: float | None) -> int | None:
    """Return the first tick that is not before ``time_s``."""
    if time_s is None:
        return None
    return clock.origin + math.ceil(Fraction(time_s) / clock.time_base - _FORGIVENESS)


def _pts(packet: Packet[Any]) -> int:
    assert packet.pts is not None  # _key_packets yields no other
    return packet.pts
