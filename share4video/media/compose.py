"""Several frames as one image, in the exact layouts the released models were trained on.

All functions take and return ``PIL.Image`` in RGB. The layouts are those of ShareGPT4Video's released code:
the white-banded grid of its chat model, and the strip and the stacked pair of ShareCaptioner-Video.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GRID_BAND = 50  # pixels of white between cells, and between the frames of a pair
GRID_LONG_SIDE = 1920
HD_TILE = 336  # input side of the CLIP tower

_WHITE = (255, 255, 255)
_BLACK = (0, 0, 0)
_STRIP_MARGIN = 10  # above, below and to the right of every frame of the strip
_STRIP_LABEL_WIDTH = 100  # at least
_STRIP_RULE_WIDTH = 2


def frame_grid(
    frames: Sequence[Image.Image], *, long_side: int | None = GRID_LONG_SIDE, band: int = GRID_BAND
) -> Image.Image:
    """Lay frames out in reading order on a square grid with white bands between the cells.

    The grid has ``ceil(sqrt(n))`` cells per side; cells left over stay white.

    Args:
        frames: at least one frame, all of one size.
        long_side: the longer side is scaled down to this many pixels (bilinear); None leaves the full canvas.
        band: pixels between cells.

    Raises:
        ValueError: there is no frame, or the sizes differ.
    """
    if not frames:
        raise ValueError("a grid needs at least one frame")
    width, height = frames[0].size
    if any(frame.size != (width, height) for frame in frames):
        raise ValueError(f"a grid needs frames of one size, got {sorted({frame.size for frame in frames})}")
    side = math.isqrt(len(frames) - 1) + 1  # ceil(sqrt(n)) without floating point
    canvas = Image.new("RGB", (side * width + (side - 1) * band, side * height + (side - 1) * band), _WHITE)
    for index, frame in enumerate(frames):
        row, column = divmod(index, side)
        canvas.paste(frame, (column * (width + band), row * (height + band)))
    return canvas if long_side is None else limit_long_side(canvas, long_side)


def limit_long_side(image: Image.Image, long_side: int) -> Image.Image:
    """Scale ``image`` down so that its longer side is ``long_side`` pixels; a smaller image is left alone.

    Sides are truncated after scaling, as in the reference: 2710 x 1590 becomes 1919 x 1126.
    """
    width, height = image.size
    if max(width, height) <= long_side:
        return image
    scale = long_side / max(width, height)
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR)


def tall_strip(frames: Sequence[Image.Image]) -> Image.Image:
    """Stack frames into one tall image with a numbered label column at the left (fast captioning).

    Labels read ``<IMAGE k>``, counted from 0 as in the reference, and start at the middle of their frame. The
    reference draws them in SimHei, which may not be redistributed; here Pillow's own font is scaled to the
    column, which leaves every size and position of the layout as it was.

    Raises:
        ValueError: there is no frame.
    """
    if not frames:
        raise ValueError("a strip needs at least one frame")
    widest = max(frame.width for frame in frames)
    column = max(widest // 4, _STRIP_LABEL_WIDTH)
    step = 2 * _STRIP_MARGIN
    width = column + widest + step
    strip = Image.new("RGB", (width, step + sum(frame.height + step for frame in frames)), _WHITE)
    draw = ImageDraw.Draw(strip)
    font = _label_font(f"<IMAGE {len(frames) - 1}>", column)
    top = _STRIP_MARGIN
    for index, frame in enumerate(frames):
        if index:
            rule = top - _STRIP_MARGIN
            draw.line([(0, rule), (width, rule)], fill=_BLACK, width=_STRIP_RULE_WIDTH)
        strip.paste(frame, (column, top))
        draw.text((0, top + frame.height // 2), f"<IMAGE {index}>", font=font, fill=_BLACK)
        top += frame.height + step
    return strip


def _label_font(label: str, column: int) -> ImageFont.FreeTypeFont:
    """Return the largest font, of at most the reference's ``column // 5``, in which ``label`` fits."""
    for size in range(column // 5, 0, -1):
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        if font.getlength(label) <= column:
            return font
    raise ValueError(f"no room for the label {label!r} in {column} pixels")


def stacked_pair(first: Image.Image, second: Image.Image) -> Image.Image:
    """Stack two frames with a white gap of 50 pixels between, the earlier on top (sliding captioning)."""
    width = max(first.width, second.width)
    pair = Image.new("RGB", (width, first.height + GRID_BAND + second.height), _WHITE)
    pair.paste(first, (0, 0))
    pair.paste(second, (0, first.height + GRID_BAND))
    return pair


def hd_content_size(width: int, height: int, hd_num: int, tile: int = HD_TILE) -> tuple[int, int]:
    """Return the size in pixels an image is scaled to before it is padded to whole tiles (``hd_size``).

    In landscape the width is the largest number of tiles for which ``columns * rows <= hd_num``; portrait
    images are treated lying on their side.

    Args:
        tile: side of a tile in pixels.

    Raises:
        ValueError: a size, ``hd_num`` or ``tile`` is not positive.
    """
    if min(width, height, hd_num, tile) < 1:
        raise ValueError(f"sizes and hd_num must be positive, got {width} x {height}, {hd_num}, {tile}")
    if width < height:
        tall, wide = hd_content_size(height, width, hd_num, tile)
        return wide, tall
    ratio = width / height
    columns = 1
    while (columns + 1) * math.ceil((columns + 1) / ratio) <= hd_num:
        columns += 1
    return columns * tile, max(1, int(columns * tile / ratio))


def hd_size(width: int, height: int, hd_num: int, tile: int = HD_TILE) -> tuple[int, int]:
    """Return the size in pixels of the HD transform's output: whole tiles, at most ``hd_num`` of them.

    ShareCaptioner-Video was trained with ``hd_num`` 25 (fast: 55); its demo uses 9 (sliding) and 16 (fast).
    """
    wide, tall = hd_content_size(width, height, hd_num, tile)
    return math.ceil(wide / tile) * tile, math.ceil(tall / tile) * tile


def hd_transform(image: Image.Image, hd_num: int, tile: int = HD_TILE) -> Image.Image:
    """Scale ``image`` to at most ``hd_num`` tiles (bilinear) and centre it on white whole tiles."""
    content = hd_content_size(*image.size, hd_num, tile)
    size = hd_size(*image.size, hd_num, tile)
    padded = Image.new("RGB", size, _WHITE)
    corner = ((size[0] - content[0]) // 2, (size[1] - content[1]) // 2)
    padded.paste(image.resize(content, Image.Resampling.BILINEAR), corner)
    return padded


def hd_grids(hd_num: int) -> list[tuple[int, int]]:
    """Return every grid of tiles the HD transform may fill, as (columns, rows), in order.

    A landscape grid is one of them where neither another column nor, with it, another row would fit.

    Raises:
        ValueError: ``hd_num`` is not positive.
    """
    if hd_num < 1:
        raise ValueError(f"hd_num must be positive, got {hd_num}")
    lying = {
        (columns, rows)
        for columns in range(1, hd_num + 1)
        for rows in range(1, min(columns, hd_num // columns) + 1)
        if (columns + 1) * (rows + 1) > hd_num
    }
    return sorted(lying | {(columns, rows) for rows, columns in lying})
