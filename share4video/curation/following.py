"""Key frames of a video while it is decoded: the rules of ``samples``, with a memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from share4video.config import KeyframeConfig
from share4video.curation.keyframes import Selection
from share4video.curation.motion import energies
from share4video.curation.samples import encoder_of
from share4video.errors import UserError
from share4video.media.decode import Frame


@dataclass(frozen=True, eq=False)
class FollowedFrame:
    """A key frame, and how alike it is to the one before; None for the first and where none are compared."""

    frame: Frame
    similarity: float | None


def check_mode(config: KeyframeConfig) -> None:
    """Check that a video can be followed in the configured mode.

    Raises:
        UserError: its rule needs the whole clip.
    """
    if config.mode == "reference":
        raise UserError(
            "key frames by the released script's rules need the whole clip",
            where="keyframes.mode=reference",
            fix="follow with keyframes.mode=paper or uniform",
        )


def follow(frames: Iterable[Frame], config: KeyframeConfig) -> Iterator[FollowedFrame]:
    """Yield the key frames among sampled frames as soon as they are known to be: at the next sample.

    Args:
        frames: as ``media.decode.frames_every`` gives them at ``config.interval_s``.

    Raises:
        UserError: the encoder is unknown or cannot be loaded, or the mode's rule needs the whole clip.
    """
    check_mode(config)
    encoder = encoder_of(config)
    if encoder is None:
        for frame in frames:
            yield FollowedFrame(frame, None)
        return
    threshold = encoder.threshold if config.threshold is None else config.threshold
    selection = Selection(threshold, max_gap_s=config.max_gap_s, motion_threshold=config.motion_threshold)
    before: Frame | None = None
    for frame in frames:
        (encoding,) = encoder.encode([frame.rgb])
        watched = config.motion_threshold is not None and before is not None
        motion = energies([before.rgb, frame.rgb])[1] if watched and before is not None else 0.0
        chosen = selection.add(encoding, timestamp_s=frame.timestamp_s, motion=motion)
        if chosen is not None and before is not None:
            yield FollowedFrame(before, chosen.similarity)
        before = frame
    chosen = selection.close()
    if chosen is not None and before is not None:
        yield FollowedFrame(before, chosen.similarity)
