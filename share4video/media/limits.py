"""What a file may cost, and what is raised when it cannot be read within that."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

# The reasons of files that could not be read or decoded; the others say what a file is.
FAILURES = frozenset({"unreadable", "truncated", "decode_timeout", "decode_memory", "decode_crash"})


class MediaError(Exception):
    """A media file that is refused; the worker that met it goes on.

    Attributes:
        reason: code in snake_case. ``not_video``, ``not_picture``, ``unreadable``, ``truncated``,
            ``too_large``, ``not_for_decord``, or what the guard saw: ``decode_timeout``, ``decode_memory``,
            ``decode_crash``.
        sentence: what is wrong, for a person, without a full stop and without the file's name.
        measured: the offending number, where there is one; never a latency.
        bound: what it was held against.
    """

    def __init__(
        self, reason: str, sentence: str, *, measured: float | None = None, bound: float | None = None
    ) -> None:
        super().__init__(sentence)
        self.reason, self.sentence, self.measured, self.bound = reason, sentence, measured, bound


@dataclass(frozen=True)
class Limits:
    """Bounds on one call that decodes.

    Attributes:
        wall_s: seconds the call may take.
        memory_bytes: address space the decoder may take on top of an idle worker's.
        max_pixels: pixels per picture.
        output_bytes: bytes of RGB the call may return, all frames together.
        threads: decoder threads.
    """

    wall_s: float = 60.0
    memory_bytes: int = 1 << 30
    max_pixels: int = 4096 * 2304
    output_bytes: int = 1 << 30
    threads: int = 2

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
