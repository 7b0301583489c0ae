"""Captioned clips of a store, found by name, and what is stored of one: no video and no picture is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from share4video.dataset.manifest import StageRef, load_manifest, published_refs
from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.store import Store

DATASET, CAPTION = "dataset", "caption"  # the stages whose outputs hold differential captions
CLIPS = "dedup"  # the stage whose clips are captioned
_NAMED_IN_AN_ERROR = 5

Row = Mapping[str, Any]


@dataclass(frozen=True)
class StoredClip:
    """A captioned clip.

    Attributes:
        ref: the output it was found in.
        source_uri: empty where the output does not say.
        start_s: where it begins, in seconds of the source, as all times here.
        differentials: its rows of that table.
        parts: its rows of table ``captions`` of role ``part_summary``.
    """

    ref: StageRef
    clip_id: str
    source_uri: str
    start_s: float
    end_s: float
    differentials: tuple[Row, ...]
    parts: tuple[Row, ...]


def find_clip(store: Store, name: str, ref: StageRef | None = None) -> StoredClip:
    """Return the captioned clip that ``name`` means: its id or the beginning of it, its uri or file name.

    Args:
        ref: the dataset, or output of the caption stage, to look in. None: every dataset of the store, or
            where there is none every output of the caption stage.

    Raises:
        UserError: there is no such clip, there are several, or several outputs hold it.
    """
    if ref is not None and ref.stage not in (DATASET, CAPTION):
        raise UserError(
            "this output holds no captions", where=str(ref), fix="give one of stage dataset or caption"
        )
    refs = [ref] if ref else published_refs(store, DATASET) or published_refs(store, CAPTION)
    if not refs:
        raise UserError("nothing is captioned in this store", fix="run share4video caption first")
    found = [(place, clip) for place in refs for clip in _matching(_clips(store, place), name)]
    if not found:
        raise UserError("no captioned clip has this name", where=name, fix="give a clip_id or a file's name")
    clip_ids = sorted({str(clip["clip_id"]) for _, clip in found})
    if len(clip_ids) > 1:
        some = ", ".join(clip_ids[:_NAMED_IN_AN_ERROR])
        raise UserError(f"the name means {len(clip_ids)} clips", where=name, fix=f"give a clip_id: {some}")
    if len(found) > 1:
        places = ", ".join(str(place) for place, _ in found[:_NAMED_IN_AN_ERROR])
        raise UserError(
            f"{len(found)} outputs hold this clip", where=name, fix=f"choose one with --dataset: {places}"
        )
    place, clip = found[0]
    clip_id = str(clip["clip_id"])
    differentials = tuple(_rows(store, place, "differentials", clip_id))
    if not differentials:
        raise UserError(
            "the clip has no differential captions", where=clip_id, fix="caption it with share4video caption"
        )
    parts = (row for row in _rows(store, place, "captions", clip_id) if row["role"] == "part_summary")
    return StoredClip(
        place, clip_id, clip["source_uri"], clip["start_s"], clip["end_s"], differentials, tuple(parts)
    )


def _clips(store: Store, ref: StageRef) -> list[Row]:
    """Return a row per clip.

    Outputs of the caption stage name the clips they were made from by content; where those are not in the
    store any more, the summaries tell the clips' spans.
    """
    if ref.stage == CAPTION:
        wanted = load_manifest(store, ref).inputs[:1]
        clips = [other for other in published_refs(store, CLIPS) if other.content_hash in wanted]
        if not clips:
            return _summarised(store, ref)
        ref = clips[0]
    columns = ["clip_id", "source_uri", "start_s", "end_s"]
    rows: list[Row] = read_table(store, ref, "clips").select(columns).to_pylist()
    return rows


def _summarised(store: Store, ref: StageRef) -> list[Row]:
    table = read_table(store, ref, "captions").select(["clip_id", "role", "start_s", "end_s"])
    summaries = table.filter(pc.equal(table["role"], "summary"))
    return [{**row, "source_uri": ""} for row in summaries.to_pylist()]


def _matching(clips: list[Row], name: str) -> list[Row]:
    """Return the clips that the strictest reading of the name finds."""
    readings: tuple[Callable[[Row], bool], ...] = (
        lambda clip: clip["clip_id"] == name,
        lambda clip: clip["source_uri"] == name,
        lambda clip: clip["source_uri"].rpartition("/")[2] == name,
        lambda clip: clip["clip_id"].startswith(name),
    )
    for reading in readings if name else ():
        if found := [clip for clip in clips if reading(clip)]:
            return found
    return []


def _rows(store: Store, ref: StageRef, table: str, clip_id: str) -> Iterator[Row]:
    """Read one clip's rows part by part: the tables of a large dataset need not fit into memory."""
    for part in load_manifest(store, ref).parts:
        if part.table == table:
            rows = read_table(store, ref, table, shard=part.shard)
            yield from rows.filter(pc.equal(rows["clip_id"], clip_id)).to_pylist()
