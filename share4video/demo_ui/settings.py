"""What the demo app takes, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass

from share4video.media.limits import Limits

GRID_FRAMES_BOUNDS = (1, 36)
INTERVAL_BOUNDS_S = (0.5, 10.0)
KEY_FRAMES_BOUNDS = (2, 60)  # more do not fit into one JPEG, at most 65,500 pixels tall (fast captions)
TOKENS_BOUNDS = (16, 2048)
TEMPERATURE_BOUNDS = (0.0, 1.5)


@dataclass(frozen=True)
class Bounds:
    """What an uploaded file may be, and what people may ask for at a time.

    Attributes:
        max_bytes: of an upload.
        max_duration_s: of a video.
        max_pixels: per frame, and of an image.
        decode_s: seconds that decoding one clip may take.
        decoders: clips decoded at a time, for all visitors together.
        at_once: answers and captionings under way, of each; further ones wait.
        waiting: how many may wait; further ones are told to come back.
        kept_s: how long an upload, and a visitor's conversation, is kept.
    """

    max_bytes: int = 256 << 20
    max_duration_s: float = 600.0
    max_pixels: int = 4096 * 2304
    decode_s: float = 60.0
    decoders: int = 2
    at_once: int = 4
    waiting: int = 32
    kept_s: int = 3600

    @property
    def limits(self) -> Limits:
        """The bounds of one call that decodes."""
        return Limits(wall_s=self.decode_s, max_pixels=self.max_pixels)
