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
    """A small JPEG, as a ``data:`` address."""

    uri: str
    width: int
    height: int


def thumbnail(data: bytes, max_side: int = MAX_SIDE) -> Thumbnail | None:
    """Scale an image file down; None where it is damaged, no image, or larger than anything we make.

    Args:
        max_side: pixels of the longer side, at most.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            image.draft("RGB", (2 * max_side, 2 * max_side))  # JPEG decodes straight to about this size
            small = image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return None
    small.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    small.save(sink, "JPEG", quality=_QUALITY, optimize=True)
    encoded = base64.b64encode(sink.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", small.width, small.height)
