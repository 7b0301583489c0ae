"""Captioned clips of a store, found by name, and what is stored of one: no video and no picture is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from share4video.dataset.manifest import Manifest, StageRef, load_manifest, published_refs
from share4video.dataset.outputs import earlier_of, stored_manifests
from share4video.dataset.published import clip_rows
from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.store import Store

DATASET, CAPTION = "dataset", "caption"  # the stages whose outputs hold differential captions
CLIPS = "dedup"  # the stage whose clips are captioned
_NAMED_IN_AN_ERROR = 5
_NAMES = ["clip_id", "source_uri", "start_s", "end_s"]

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
            where there is none every output of the caption stage. Of datasets that grew from each other the
            newest is taken, of outputs with the same captions of the clip any; damaged ones are passed over.

    Raises:
        UserError: there is no such clip, there are several, several outputs hold it with captions of their
            own, or it was not found and an output is damaged.
    """
    if ref is not None and ref.stage not in (DATASET, CAPTION):
        raise UserError(
            "this output holds no captions", where=str(ref), fix="give one of stage dataset or caption"
        )
    if ref is not None:
        found = _matching(_clips(store, load_manifest(store, ref)), ref, name)
    else:
        found = _anywhere(store, name)
    if not found:
        raise UserError("no captioned clip has this name", where=name, fix="give a clip_id or a file's name")
    clip_ids = sorted({str(clip["clip_id"]) for _, clip in found})
    if len(clip_ids) > 1:
        some = ", ".join(clip_ids[:_NAMED_IN_AN_ERROR])
        raise UserError(f"the name means {len(clip_ids)} clips", where=name, fix=f"give a clip_id: {some}")
    held = [_held(store, place, clip) for place, clip in _newest(store, found)]
    captions = {repr((one.differentials, one.parts)) for one in held}
    if len(captions) > 1:
        places = ", ".join(str(one.ref) for one in held[:_NAMED_IN_AN_ERROR])
        raise UserError(
            f"{len(held)} outputs hold this clip", where=name, fix=f"choose one with --dataset: {places}"
        )
    if not held[0].differentials:
        raise UserError(
            "the clip has no differential captions",
            where=held[0].clip_id,
            fix="caption it with share4video caption",
        )
    return held[0]


def _anywhere(store: Store, name: str) -> list[tuple[StageRef, Row]]:
    """Find a clip in every output there is."""
    manifests = list(stored_manifests(store, DATASET)) or list(stored_manifests(store, CAPTION))
    found: list[tuple[StageRef, Row]] = []
    damaged: UserError | None = None
    for manifest in manifests:
        try:
            found += _matching(_clips(store, load_manifest(store, manifest.ref)), manifest.ref, name)
        except UserError as error:
            damaged = damaged or error
    if not found:
        for stage in (DATASET, CAPTION):
            published_refs(store, stage)  # a damaged manifest is said
        if damaged is not None:
            raise damaged
        if not manifests:
            raise UserError("nothing is captioned in this store", fix="run share4video caption first")
    return found


def _newest(store: Store, found: Sequence[tuple[StageRef, Row]]) -> list[tuple[StageRef, Row]]:
    """Leave out datasets that others among those found grew from."""
    places = {place for place, _ in found}
    grown_from: set[StageRef] = set()
    configs = {manifest.ref: manifest.config for manifest in stored_manifests(store, DATASET)}
    for place in places:
        earlier = earlier_of(configs.get(place, {}))
        while earlier is not None and earlier not in grown_from:
            grown_from.add(earlier)
            earlier = earlier_of(configs.get(earlier, {}))
    return [one for one in found if one[0] not in grown_from]


def _held(store: Store, ref: StageRef, clip: Row) -> StoredClip:
    clip_id = str(clip["clip_id"])
    differentials = tuple(clip_rows(store, ref, "differentials", [clip_id]))
    parts = tuple(
        row for row in clip_rows(store, ref, "captions", [clip_id]) if row["role"] == "part_summary"
    )
    return StoredClip(ref, clip_id, clip["source_uri"], clip["start_s"], clip["end_s"], differentials, parts)


def _clips(store: Store, manifest: Manifest) -> pa.Table:
    """Return a row per clip, with its name and span.

    Outputs of the caption stage name the clips they were made from by content; where those are not in the
    store any more, the summaries tell the clips' spans.
    """
    ref = manifest.ref
    if ref.stage == CAPTION:
        clips = [one.ref for one in stored_manifests(store, CLIPS) if one.content_hash in manifest.inputs[:1]]
        if not clips:
            return _summarised(store, ref)
        ref = clips[0]
    return read_table(store, ref, "clips", columns=_NAMES).select(_NAMES)


def _summarised(store: Store, ref: StageRef) -> pa.Table:
    columns = ["clip_id", "role", "start_s", "end_s"]
    table = read_table(store, ref, "captions", columns=columns).select(columns)
    summaries = table.filter(pc.equal(table["role"], "summary"))
    nameless = pa.array([""] * len(summaries), pa.string())
    return summaries.append_column("source_uri", nameless).select(_NAMES)


def _matching(clips: pa.Table, ref: StageRef, name: str) -> list[tuple[StageRef, Row]]:
    """Return the clips of ``ref`` that the strictest reading of the name finds."""
    ids, uris = clips["clip_id"], clips["source_uri"]
    readings: list[Callable[[], pa.ChunkedArray]] = [
        lambda: pc.equal(ids, name),
        lambda: pc.equal(uris, name),
        lambda: pc.starts_with(ids, name),
    ]
    if "/" not in name:
        readings.insert(2, lambda: pc.ends_with(uris, f"/{name}"))
    for reading in readings if name else ():
        if found := clips.filter(reading()).to_pylist():
            return [(ref, clip) for clip in found]
    return []
