"""Which sampled frames of a clip are key frames (ShareGPT4Video, section 3.2), and how they are kept.

Frames are sampled at a fixed interval. The first is a key frame; each later one is where its similarity to
the latest key frame is below the threshold; the last always is. The released script differs in which frames
it looks at and in the last one: ``select_reference`` follows it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from share4video.config import CaptionConfig
from share4video.curation.encoders import Rgb, Vectors, cut_threshold

REFERENCE_SHORTEST_S, REFERENCE_LONGEST_S = 10, 120  # of the released script, in seconds of its own count


@dataclass(frozen=True)
class KeyFrame:
    """A sampled frame that was chosen.

    Attributes:
        sample: its number among the sampled frames, from 0.
        similarity: to the key frame before it; None for the first, and where nothing was compared.
    """

    sample: int
    similarity: float | None


def select(
    encodings: Vectors,
    threshold: float,
    *,
    timestamps_s: Sequence[float] | None = None,
    max_gap_s: float | None = None,
    motion: Sequence[float] | None = None,
    motion_threshold: float | None = None,
) -> list[KeyFrame]:
    """Choose the key frames of one clip by the paper's rule.

    Args:
        encodings: [frames, dimensions], rows of length 1, in order of time.
        threshold: a frame is chosen where it is less similar than this to the latest chosen one.
        timestamps_s: when each frame is on show; needed with ``max_gap_s``.
        max_gap_s: choose a frame also where the next sample would be further than this from the latest
            chosen one, so that no more than this passes between key frames that sampling could separate.
        motion: the motion energy from the frame before to each (``curation.motion``); needed with
            ``motion_threshold``.
        motion_threshold: choose a frame also where the energies since the latest chosen one sum to more than
            this, so that a motion the encoder does not see is not lost.

    Raises:
        ValueError: times or energies are missing, do not match the frames, or times do not increase.
    """
    if max_gap_s is not None:
        if timestamps_s is None or len(timestamps_s) != len(encodings):
            raise ValueError("a longest gap needs one time per frame")
        if any(late <= early for early, late in zip(timestamps_s, timestamps_s[1:], strict=False)):
            raise ValueError("times must increase")
    if motion_threshold is not None and (motion is None or len(motion) != len(encodings)):
        raise ValueError("a bound on motion needs one energy per frame")
    selection = Selection(threshold, max_gap_s=max_gap_s, motion_threshold=motion_threshold)
    found = [
        selection.add(
            encoding,
            timestamp_s=timestamps_s[sample] if timestamps_s is not None else 0.0,
            motion=motion[sample] if motion is not None else 0.0,
        )
        for sample, encoding in enumerate(encodings)
    ]
    return [key_frame for key_frame in (*found, selection.close()) if key_frame is not None]


@dataclass
class _Sample:
    number: int
    encoding: npt.NDArray[np.float32]
    timestamp_s: float
    motion: float


class Selection:
    """The rule of ``select`` for frames that come one by one; its arguments are those of ``select``.

    Each frame is judged when the next is known, or that there is none. Two are held at a time.
    """

    def __init__(
        self, threshold: float, *, max_gap_s: float | None = None, motion_threshold: float | None = None
    ) -> None:
        self._threshold = threshold
        self._max_gap_s = math.inf if max_gap_s is None else max_gap_s
        self._motion_threshold = math.inf if motion_threshold is None else motion_threshold
        self._latest: _Sample | None = None  # key frame
        self._held: _Sample | None = None
        self._samples, self._moved = 0, 0.0

    def add(
        self, encoding: npt.NDArray[np.float32], *, timestamp_s: float = 0.0, motion: float = 0.0
    ) -> KeyFrame | None:
        """Take the next frame; return the one before it where that is a key frame."""
        judged = self._judge(next_s=timestamp_s)
        self._held = _Sample(self._samples, encoding, timestamp_s, motion)
        self._samples += 1
        return judged

    def close(self) -> KeyFrame | None:
        """Return the last frame, which is a key frame; None where there was no frame."""
        return self._judge(next_s=None)

    def _judge(self, next_s: float | None) -> KeyFrame | None:
        held, latest, self._held = self._held, self._latest, None
        if held is None:
            return None
        similarity = None if latest is None else float(np.dot(latest.encoding, held.encoding))
        if latest is not None and similarity is not None and next_s is not None:
            self._moved += held.motion
            overdue = next_s - latest.timestamp_s > self._max_gap_s
            if similarity >= self._threshold and not overdue and self._moved <= self._motion_threshold:
                return None
        self._latest, self._moved = held, 0.0
        return KeyFrame(held.number, similarity)


def select_reference(
    encodings: Vectors, threshold: float, *, positions: Sequence[int], interval: int
) -> list[KeyFrame]:
    """Choose the key frames of one clip as the released script does.

    A frame at a multiple of ``interval`` is chosen by the paper's rule. The last one of the clip is chosen
    where there is no other but the first, or where at least ``interval`` frames follow the latest chosen one,
    that one counted.

    Args:
        encodings: of the frames at ``positions``; [frames, dimensions], rows of length 1.
        positions: as ``reference_positions`` gives them.
        interval: frames from one sample to the next.
    """
    chosen: list[KeyFrame] = []
    for sample, position in enumerate(positions):
        if not chosen:
            chosen.append(KeyFrame(sample, None))
            continue
        similarity = _similarity(encodings, chosen[-1].sample, sample)
        left = positions[-1] + 1 - positions[chosen[-1].sample]
        closing = sample == len(positions) - 1 and (len(chosen) == 1 or left >= interval)
        if closing or (position % interval == 0 and similarity < threshold):
            chosen.append(KeyFrame(sample, similarity))
    return chosen


def reference_interval(fps: float, interval_s: float) -> int:
    """Return how many frames the released script goes from sample to sample, the rate cut to an integer."""
    return math.ceil(int(fps) * interval_s)


def reference_positions(frames: int, interval: int) -> list[int]:
    """Return which of a clip's frames the released script may choose: every ``interval``-th, and the last."""
    return sorted({*range(0, frames, interval), frames - 1})


def cut_bound(config: CaptionConfig, encoder: str | None) -> float | None:
    """Return the similarity below which a key frame begins a scene; None where that makes no difference.

    Args:
        encoder: what the key frames were compared by, as configurations name it, where that is known.

    Raises:
        UserError: there is no such encoder.
    """
    if config.mode == "reference":
        return None
    if config.cut_threshold is not None or encoder is None:
        return config.cut_threshold
    return cut_threshold(encoder)


def jpeg_bytes(rgb: Rgb, *, max_side: int, quality: int) -> bytes:
    """Encode a frame as JPEG, scaled down so that no side is longer than ``max_side`` pixels."""
    image = Image.fromarray(rgb)
    scale = max_side / max(image.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
    target = io.BytesIO()
    image.save(target, "JPEG", quality=quality)
    return target.getvalue()


def _similarity(encodings: Vectors, one: int, other: int) -> float:
    return float(np.dot(encodings[one], encodings[other]))
