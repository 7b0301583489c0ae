"""Whole tiles in LLaVA-NeXT: what they cost, and whether a checkpoint takes them as they are sent.

A picture that is exactly one of the model's grids (``image_grid_pinpoints``) is cut into it without another
scaling or padding, beside the whole picture as one more tile. Where its grid is none of the model's, the
processor takes another, which may be larger than the role's budget.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from share4video.captioning.checkpoints import json_object
from share4video.errors import UserError
from share4video.media.compose import hd_grids
from share4video.wording import TileBudgets

ARCHITECTURE = "llava_next"
GRIDS_KEY = "image_grid_pinpoints"
PATCHES = 24  # per side of a tile, of CLIP-L/14 at 336 pixels


def visual_tokens(columns: int, rows: int, patches: int = PATCHES) -> int:
    """Return how many tokens a picture of whole tiles costs a LLaVA-NeXT model.

    One for each patch of the whole picture as one tile, one for each patch of the tiles, and one at the end
    of each row of patches. In the budgets of the released demo that is at most 5,976 (9 tiles) and 10,176
    (16 tiles).

    Args:
        patches: per side of a tile.
    """
    return patches**2 + rows * patches * (columns * patches + 1)


def pinpoints(tiles: TileBudgets) -> list[list[int]]:
    """Return every grid that pictures are sent in, as models list them: [height, width] in pixels."""
    grids = sorted({*hd_grids(tiles.fast), *hd_grids(tiles.sliding)})
    return [[rows * tiles.side, columns * tiles.side] for columns, rows in grids]


def grid_files(folder: Path) -> list[Path]:
    """Return the files of a LLaVA-NeXT checkpoint that list its grids: the model's and the processor's.

    Raises:
        UserError: a file is missing.
    """
    processor = folder / "processor_config.json"
    if not processor.is_file() or "image_processor" not in json_object(processor):
        processor = folder / "preprocessor_config.json"  # as transformers 4 wrote it
        json_object(processor)
    return [folder / "config.json", processor]


def grid_holder(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the part of one of `grid_files` in which the grids stand."""
    inner: dict[str, Any] = fields.get("image_processor", fields)
    return inner


def check_grids(folder: Path, tiles: TileBudgets) -> None:
    """Check that a LLaVA-NeXT checkpoint has tiles of this size and every grid that pictures are sent in.

    Other architectures cut pictures in their own way, and are not looked at.

    Raises:
        UserError: it has not; the sentence says how many grids there are of how many.
    """
    config = json_object(folder / "config.json")
    if config.get("model_type") != ARCHITECTURE:
        return
    side = config.get("vision_config", {}).get("image_size", tiles.side)
    if side != tiles.side:
        raise UserError(
            f"the model's tiles have sides of {side} pixels, not {tiles.side}",
            where=str(folder),
            fix=f"set side: {side} in the engine's tiles",
        )
    wanted = {tuple(grid) for grid in pinpoints(tiles)}
    for file in grid_files(folder):
        known = wanted & {tuple(grid) for grid in _listed(grid_holder(json_object(file)))}
        if known != wanted:
            raise UserError(
                f"the model lists {len(known)} of the {len(wanted)} grids that {tiles.fast} and "
                f"{tiles.sliding} tiles need: pictures would be scaled to others",
                where=str(file),
                fix=f"write them with python -m share4video.models.llava_next.tile_grids {folder} --fast "
                f"{tiles.fast} --sliding {tiles.sliding}, or leave the engine's tiles out",
            )


def _listed(fields: dict[str, Any]) -> Iterable[list[int]]:
    listed = fields.get(GRIDS_KEY)
    return listed if isinstance(listed, list) else []
