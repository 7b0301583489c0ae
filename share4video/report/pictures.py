"""Key frames as small pictures that travel inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

MAX_SIDE = 160  # pixels
_QUALITY = 72
_MAX_PIXELS = 1 << 26  # of the key frame; a file that claims more is not decoded


@dataclass(frozen=True)
class Thumbnail:
    """A JPEG of at most `MAX_SIDE` pixels a side, as a ``data:`` address."""

    uri: str
    width: int
    height: int


def thumbnail(data: bytes) -> Thumbnail | None:
    """Scale an image file down; None where it is damaged, no image, or larger than anything we make."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            image.draft("RGB", (2 * MAX_SIDE, 2 * MAX_SIDE))  # JPEG decodes straight to about this size
            small = image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return None
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    small.save(sink, "JPEG", quality=_QUALITY, optimize=True)
    encoded = base64.b64encode(sink.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", small.width, small.height)
