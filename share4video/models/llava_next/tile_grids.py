"""Give a LLaVA-NeXT checkpoint the grids that pictures of whole tiles are sent in.

    python -m share4video.models.llava_next.tile_grids FOLDER --fast 55 --sliding 25

The grids are data of the configuration: no weight depends on them, and a tower sees the same tiles. A model
should be trained with those it is used with, or with more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from share4video.captioning.checkpoints import check_checkpoint, json_object
from share4video.captioning.tiles import ARCHITECTURE, GRIDS_KEY, grid_files, grid_holder, pinpoints
from share4video.errors import UserError, reading
from share4video.wording import TILE_SIDE, TileBudgets


def write_grids(folder: Path, tiles: TileBudgets) -> int:
    """Add the grids that ``tiles`` need to those in the folder's configurations; return how many there are.

    Each file is replaced at once; a run that was killed between them is run again.

    Raises:
        UserError: it is no LLaVA-NeXT checkpoint, or a file cannot be read or written.
    """
    check_checkpoint(folder)
    config = json_object(folder / "config.json")
    if config.get("model_type") != ARCHITECTURE:
        kind = config.get("model_type")
        raise UserError(f"a {kind} model has no grids", where=str(folder), fix="name a LLaVA-NeXT model")
    files = [(file, json_object(file)) for file in grid_files(folder)]
    known = {tuple(grid) for _, fields in files for grid in grid_holder(fields).get(GRIDS_KEY, [])}
    grids = sorted(known | {tuple(grid) for grid in pinpoints(tiles)})
    for file, fields in files:
        grid_holder(fields)[GRIDS_KEY] = [list(grid) for grid in grids]
        with reading("the model folder", file):
            new = file.with_name(f".{file.name}.{os.getpid()}")
            new.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
            new.replace(file)
    return len(grids)


def main() -> int:
    parser = argparse.ArgumentParser(description="Give a LLaVA-NeXT checkpoint the grids of tile budgets.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fast", type=int, default=16, help="tiles of pictures with any number of frames")
    parser.add_argument("--sliding", type=int, default=9, help="tiles of pictures with one frame or two")
    parser.add_argument("--side", type=int, default=TILE_SIDE, help="of a tile, in pixels")
    options = parser.parse_args()
    try:
        tiles = TileBudgets(fast=options.fast, sliding=options.sliding, side=options.side)
        print(f"{write_grids(options.folder, tiles)} grids")
    except (UserError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
