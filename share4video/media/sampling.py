"""Which moments of a clip are looked at. Pure arithmetic: no file is opened here."""

from __future__ import annotations

import numpy as np

_ROUNDING_S = 1e-10  # the length of a span, from its end less its start, may be out by less


def every(duration_s: float, interval_s: float) -> list[float]:
    """Return the times 0, ``interval_s``, 2 ``interval_s``, ... that lie before ``duration_s``, in seconds.

    The end itself is not a time at which a frame is shown: a clip of exactly 10 s sampled every 2 s gives
    0, 2, 4, 6, 8. A clip shorter than the interval gives 0. Times are multiples of the interval, not running
    sums, so they do not drift.

    Raises:
        ValueError: the duration is negative or not finite, or the interval is not positive.
    """
    if not 0 <= duration_s < float("inf"):
        raise ValueError(f"duration must be finite and not negative, got {duration_s}")
    if not 0 < interval_s < float("inf"):
        raise ValueError(f"interval must be finite and positive, got {interval_s}")
    times = [0.0]
    while (following := len(times) * interval_s) < duration_s - _ROUNDING_S:
        times.append(following)
    return times


def uniform_indices(n_frames: int, n: int) -> list[int]:
    """Return ``n`` frame indices spread evenly over a clip of ``n_frames`` frames.

    The rule of the released ShareGPT4Video-8B: segments of ``(N - 1) / n`` frames, the first index half a
    segment in, halves rounded to even. A clip of fewer than ``n`` frames repeats some.

    Raises:
        ValueError: either number is not positive.
    """
    if n_frames < 1 or n < 1:
        raise ValueError(f"frame counts must be positive, got {n_frames} and {n}")
    segment = (n_frames - 1) / n
    start = int(segment / 2)
    return [start + round(segment * i) for i in range(n)]


def spanning_indices(n_frames: int, n: int) -> list[int]:
    """Return ``n`` frame indices from the first to the last of a clip of ``n_frames`` frames.

    The rule of the released Video-LLaVA: even steps, fractions cut off. A clip of fewer than ``n`` frames
    repeats some; a single frame asked for is the first.

    Raises:
        ValueError: either number is not positive.
    """
    if n_frames < 1 or n < 1:
        raise ValueError(f"frame counts must be positive, got {n_frames} and {n}")
    # NumPy's own steps, as there: whether 7 * (99 / 7) is 99 or just below it is decided the same way.
    return [int(index) for index in np.linspace(0, n_frames - 1, n, dtype=int)]
