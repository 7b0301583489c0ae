"""A clip's sampled frames, and which of them are key frames: one rule for the stage, the command line and
the gateway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from share4video.config import KeyframeConfig
from share4video.curation.encoders import FrameEncoder, Rgb, Vectors, frame_encoder
from share4video.curation.keyframes import (
    REFERENCE_LONGEST_S,
    REFERENCE_SHORTEST_S,
    KeyFrame,
    reference_interval,
    reference_positions,
    select,
    select_reference,
)
from share4video.curation.motion import energies
from share4video.media.decode import Frame, frame_times, frames_at
from share4video.media.limits import Limits, MediaError
from share4video.media.sampling import every

_FLAT_CHECKED_AT_ONCE = 8  # frames of full size; a clip that begins flat is rare


@dataclass(frozen=True, eq=False)
class Samples:
    """The frames of a clip that are looked at.

    Attributes:
        frames: in order of time.
        positions: in mode ``reference``, each frame's number in the clip as the released script counts them.
        interval: in mode ``reference``, how many frames lie from one sample to the next.
    """

    frames: Sequence[Frame]
    positions: Sequence[int] = ()
    interval: int = 0

    @property
    def pictures(self) -> list[Rgb]:
        return [frame.rgb for frame in self.frames]


def encoder_of(config: KeyframeConfig) -> FrameEncoder | None:
    """Return what describes the frames; None in mode ``uniform``, which compares nothing.

    Raises:
        UserError: there is no such encoder.
    """
    return None if config.mode == "uniform" else frame_encoder(config.encoder)


def most_samples(duration_s: float, config: KeyframeConfig) -> int:
    """Return how many frames of a clip of this length are looked at, or a few more."""
    return math.ceil(duration_s / config.interval_s) + 2


def sample(
    path: str | Path, start_s: float, end_s: float, config: KeyframeConfig, *, limits: Limits | None = None
) -> Samples:
    """Decode the frames of a clip that are looked at, each once.

    Args:
        start_s: where the clip begins, in seconds after the file's first frame.
        end_s: where it ends.

    Raises:
        MediaError: the file cannot be decoded, or the clip is one the released script does nothing with
            (mode ``reference``: ``too_short``, ``low_fps``).
    """
    if config.mode == "reference":
        return _reference(path, start_s, end_s, config, limits)
    times_s = [start_s + time_s for time_s in every(end_s - start_s, config.interval_s)]
    shown = frames_at(path, times_s, max_side=config.max_side, backend=config.decoder, limits=limits)
    by_time = {frame.timestamp_s: frame for frame in shown}  # slow video shows one frame at several samples
    return Samples([by_time[time_s] for time_s in sorted(by_time)])


def choose(
    samples: Samples, encodings: Vectors | None, encoder: FrameEncoder | None, config: KeyframeConfig
) -> list[KeyFrame]:
    """Choose a clip's key frames in the configured mode.

    Args:
        encodings: of the samples; None in mode ``uniform``, which keeps every one.
        encoder: what made them.
    """
    if encodings is None or encoder is None:
        return [KeyFrame(number, None) for number in range(len(samples.frames))]
    threshold = encoder.threshold if config.threshold is None else config.threshold
    if config.mode == "reference":
        return select_reference(encodings, threshold, positions=samples.positions, interval=samples.interval)
    return select(
        encodings,
        threshold,
        timestamps_s=[frame.timestamp_s for frame in samples.frames],
        max_gap_s=config.max_gap_s,
        motion=None if config.motion_threshold is None else energies(samples.pictures),
        motion_threshold=config.motion_threshold,
    )


def _reference(
    path: str | Path, start_s: float, end_s: float, config: KeyframeConfig, limits: Limits | None
) -> Samples:
    """Sample as the released script does: by frame number, at the frame rate cut to an integer.

    Its bounds on length count frames, too, so they are seconds of its own clock. The times are the frames'
    real ones: the script names its pictures by number over the cut rate, which at 23.976 frames per second
    is 4.9 s late after two minutes.
    """
    times_s, fps = frame_times(path, start_s, end_s, limits=limits)
    rate, interval = int(fps), reference_interval(fps, config.interval_s)
    if rate < 1:
        raise MediaError(
            "low_fps", f"{fps:.2f} frames per second are fewer than the 1 required", measured=fps, bound=1.0
        )
    # The count begins at the first frame that is not all of one value, at most one interval in.
    times_s = times_s[_flat_frames(path, times_s[:interval], limits) :][: REFERENCE_LONGEST_S * rate + 1]
    least = REFERENCE_SHORTEST_S * rate + 1
    if len(times_s) < least:
        raise MediaError(
            "too_short",
            f"{len(times_s)} frames are fewer than the {least} required",
            measured=float(len(times_s)),
            bound=float(least),
        )
    positions = reference_positions(len(times_s), interval)
    wanted_s = [times_s[position] for position in positions]
    return Samples(
        frames_at(path, wanted_s, max_side=config.max_side, backend=config.decoder, limits=limits),
        positions,
        interval,
    )


def _flat_frames(path: str | Path, times_s: Sequence[float], limits: Limits | None) -> int:
    """Return how many of these frames, short of the last, come before the first that is not of one value."""
    begin, count = 0, 1  # the first is hardly ever flat
    while begin < len(times_s):
        for number, frame in enumerate(frames_at(path, times_s[begin : begin + count], limits=limits), begin):
            if frame.rgb.min() < frame.rgb.max():
                return number
        begin, count = begin + count, _FLAT_CHECKED_AT_ONCE
    return max(0, len(times_s) - 1)
