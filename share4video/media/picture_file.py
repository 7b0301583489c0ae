"""A picture's file, decoded. Runs in the guarded worker only (``guard.py``): what it costs is unknown before.

A progressive JPEG of a megabyte can hold enough scans for minutes of decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import (
    Image,
    ImageOps,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from share4video.media.limits import Limits, MediaError

__all__ = ["read"]

Image.MAX_IMAGE_PIXELS = None  # the limits of a call are narrower, and named in what is said
_READERS = (JpegImagePlugin, MpoImagePlugin, PngImagePlugin, WebPImagePlugin)  # loaded before limits are set


def read(path: str, limits: Limits, formats: Sequence[str]) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
    """Return Pillow's name of the format, width and height; and the first picture as (height, width, 3) RGB.

    Both are of the picture held upright, as its metadata says.

    Raises:
        MediaError: it is of no format in ``formats`` (``not_picture``), damaged, or over a limit.
    """
    try:
        with Image.open(path, formats=list(formats)) as image:
            _check_pixels(image, limits)
            image.load()
            upright = _upright(image)
            facts = {"format": image.format, "width": upright.width, "height": upright.height}
            return facts, np.asarray(upright.convert("RGB"), np.uint8)
    except (MediaError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise MediaError("not_picture", "the image cannot be decoded") from error
    except Exception as error:  # a damaged file leads the parsers into errors of every kind
        raise MediaError("unreadable", "the image cannot be decoded") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # damaged metadata of every kind; the picture is sound
        return image


def _check_pixels(image: Image.Image, limits: Limits) -> None:
    pixels = image.width * image.height
    if pixels > limits.max_pixels:
        raise MediaError(
            "too_large",
            f"a picture of {image.width} x {image.height} is over the {limits.max_pixels} pixels allowed",
            measured=float(pixels),
            bound=float(limits.max_pixels),
        )
