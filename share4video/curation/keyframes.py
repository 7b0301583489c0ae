"""Which sampled frames of a clip are key frames (ShareGPT4Video, section 3.2), and how they are kept.

Frames are sampled at a fixed interval. The first is a key frame; each later one is where its similarity to
the latest key frame is below the threshold; the last always is. (The released script keeps the last frame
only now and then, and encodes each latest key frame anew for every comparison; here each frame is encoded
once.)
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from share4video.curation.encoders import Rgb, Vectors


@dataclass(frozen=True)
class KeyFrame:
    """A sampled frame that was chosen.

    Attributes:
        sample: its number among the sampled frames, from 0.
        similarity: to the key frame before it; None for the first.
    """

    sample: int
    similarity: float | None


def select(
    encodings: Vectors,
    threshold: float,
    *,
    timestamps_s: Sequence[float] | None = None,
    max_gap_s: float | None = None,
) -> list[KeyFrame]:
    """Choose the key frames of one clip.

    Args:
        encodings: [frames, dimensions], rows of length 1, in order of time.
        threshold: a frame is chosen where it is less similar than this to the latest chosen one.
        timestamps_s: when each frame is on show; needed with ``max_gap_s``.
        max_gap_s: choose a frame also where the next sample would be further than this from the latest
            chosen one, so that no more than this passes between key frames that sampling could separate.

    Raises:
        ValueError: times are missing, do not match the frames, or do not increase.
    """
    if max_gap_s is not None:
        if timestamps_s is None or len(timestamps_s) != len(encodings):
            raise ValueError("a longest gap needs one time per frame")
        if any(late <= early for early, late in zip(timestamps_s, timestamps_s[1:], strict=False)):
            raise ValueError("times must increase")
    chosen: list[KeyFrame] = []
    last = len(encodings) - 1
    for sample in range(len(encodings)):
        if not chosen:
            chosen.append(KeyFrame(sample, None))
            continue
        latest = chosen[-1].sample
        similarity = float(np.dot(encodings[latest], encodings[sample]))
        overdue = (
            max_gap_s is not None
            and timestamps_s is not None
            and sample < last
            and timestamps_s[sample + 1] - timestamps_s[latest] > max_gap_s
        )
        if similarity < threshold or overdue or sample == last:
            chosen.append(KeyFrame(sample, similarity))
    return chosen


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
