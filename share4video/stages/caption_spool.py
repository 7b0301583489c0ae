"""The clips of one shard of captioning, on disk: their rows, their key frames, and what came of them.

In memory a clip that waits is one number, how many calls it takes. Reading holds one batch of key frames,
captioning the pictures of the clips under way. The file takes as much disk as the shard's pictures.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from share4video.captioning.differential import Chain
from share4video.captioning.roles import KeyFrame
from share4video.dataset.batches import local_part, part_batches
from share4video.dataset.manifest import Part, StageRef, load_manifest
from share4video.dataset.tombstones import taken_down
from share4video.scratch import ScratchDatabase
from share4video.stages.division import shares
from share4video.store import Store

Row = Mapping[str, Any]

_TABLES = (
    "CREATE TABLE found (clip_id TEXT PRIMARY KEY, frames INTEGER) WITHOUT ROWID",
    "CREATE TABLE mine (clip_id TEXT PRIMARY KEY, frames INTEGER, clip TEXT) WITHOUT ROWID",
    "CREATE TABLE clips (number INTEGER PRIMARY KEY, clip_id TEXT UNIQUE, frames INTEGER, clip TEXT)",
    "CREATE TABLE frames"
    " (number, place, timestamp_s REAL, jpeg BLOB, similarity REAL, PRIMARY KEY (number, place))",
    "CREATE TABLE finished (number INTEGER PRIMARY KEY, chain BLOB)",
)
_FRAMES_AT_ONCE, _ROWS_AT_ONCE = 32, 1024


class ClipSpool:
    """A shard's clips in the order of their ids, numbered from 0. Made by `clip_spool`.

    Attributes:
        frames: how many key frames each clip has.
        published: ids of the share's clips that are captioned already, and have no number; ascending.
    """

    def __init__(self, database: ScratchDatabase, published: Sequence[str] = ()) -> None:
        self._database, self.published = database, sorted(published)
        counts = database.rows("SELECT frames FROM clips ORDER BY number")
        self.frames: npt.NDArray[np.int32] = np.fromiter((count for (count,) in counts), np.int32)

    def __len__(self) -> int:
        return len(self.frames)

    def load(self, number: int) -> tuple[str, tuple[KeyFrame, ...]]:
        """Return a clip's id, and its key frames in order of time."""
        ((clip_id,),) = self._database.execute("SELECT clip_id FROM clips WHERE number = ?", (number,))
        rows = self._database.execute(
            "SELECT timestamp_s, jpeg, similarity FROM frames WHERE number = ? ORDER BY place", (number,)
        )
        return clip_id, tuple(KeyFrame(place, *row) for place, row in enumerate(rows, 1))

    def finish(self, number: int, chain: Chain) -> None:
        """Put away what came of a clip."""
        self._database.execute("INSERT INTO finished VALUES (?, ?)", (number, pickle.dumps(chain)))

    def finished(self) -> Iterator[tuple[Row, Chain]]:
        """Yield each clip's row of table ``clips`` and what came of it, in order."""
        for clip, chain in self._database.rows(
            "SELECT clip, chain FROM clips JOIN finished USING (number) ORDER BY number"
        ):
            yield json.loads(clip), pickle.loads(chain)  # written above, by this process


@contextmanager
def clip_spool(
    path: Path,
    store: Store,
    clips: StageRef,
    keyframes: StageRef,
    part: Part | None,
    share: int,
    of: int,
    *,
    published: Collection[str] = frozenset(),
) -> Iterator[ClipSpool]:
    """Put one share of a part's clips on disk: those that table ``clips`` has and nobody took down.

    Args:
        path: of the file, whose folder also takes a copy of one part at a time; both are removed at the end.
        part: of the key frames; None for no clips.
        share: which, of ``of`` that are about equal by number of key frames.
        published: ids of clips that are captioned already.

    Raises:
        UserError: a table is missing or damaged, or the disk is full.
    """
    database = ScratchDatabase(path, *_TABLES)
    there: list[str] = []
    try:
        if part is not None:
            with local_part(store, keyframes, part, path.with_suffix(".part")) as frames:
                _choose(database, frames, share, of)
                there = _add_clips(database, store, clips, path.with_suffix(".clips"), published)
                _add_frames(database, frames)
        yield ClipSpool(database, there)
    finally:
        database.close()


def _choose(database: ScratchDatabase, frames: Path, share: int, of: int) -> None:
    """Count every clip's key frames, and choose the clips of the share."""
    for batch in part_batches(frames, _ROWS_AT_ONCE, ["clip_id"]):
        counted = batch.column(0).value_counts()
        database.execute_many(
            "INSERT INTO found VALUES (?, ?)"
            " ON CONFLICT (clip_id) DO UPDATE SET frames = frames + excluded.frames",
            zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True),
        )
    counts = database.rows("SELECT frames FROM found ORDER BY clip_id")
    dealt = shares(np.fromiter((count for (count,) in counts), np.int32), of)
    found = database.rows("SELECT clip_id, frames FROM found ORDER BY clip_id")
    mine = (clip for clip, group in zip(found, dealt, strict=True) if group == share)
    database.execute_many("INSERT INTO mine (clip_id, frames) VALUES (?, ?)", mine)
    database.execute("DROP TABLE found")


def _add_clips(
    database: ScratchDatabase, store: Store, clips: StageRef, target: Path, published: Collection[str]
) -> list[str]:
    """Add the rows of the clips chosen, and number those that have one; return those published already."""
    gone, there = taken_down(store), []
    for part in load_manifest(store, clips).parts:
        if part.table != "clips":
            continue
        with local_part(store, clips, part, target) as local:
            for batch in part_batches(local, _ROWS_AT_ONCE):
                rows = [row for row in batch.to_pylist() if row["clip_id"] not in gone]
                if published:
                    there += [row["clip_id"] for row in rows if row["clip_id"] in published]
                    rows = [row for row in rows if row["clip_id"] not in published]
                database.execute_many(
                    "UPDATE mine SET clip = ? WHERE clip_id = ?",
                    ((json.dumps(row), row["clip_id"]) for row in rows),
                )
    database.execute(
        "INSERT INTO clips SELECT row_number() OVER (ORDER BY clip_id) - 1, clip_id, frames, clip FROM mine"
        " WHERE clip IS NOT NULL"
    )
    mine = {clip_id for (clip_id,) in database.rows("SELECT clip_id FROM mine WHERE clip IS NULL")}
    database.execute("DROP TABLE mine")
    return [clip_id for clip_id in there if clip_id in mine]


def _add_frames(database: ScratchDatabase, frames: Path) -> None:
    """Add the key frames of the clips that are numbered."""
    columns = ["index", "timestamp_s", "jpeg", "similarity", "clip_id"]
    for batch in part_batches(frames, _FRAMES_AT_ONCE, columns):
        values = [batch.column(name).to_pylist() for name in columns]
        database.execute_many(
            "INSERT INTO frames SELECT number, ?, ?, ?, ? FROM clips WHERE clip_id = ?",
            zip(*values, strict=True),
        )
