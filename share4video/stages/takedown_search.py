"""What in a store holds some clips: published outputs, unfinished ones, models that were trained on them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from share4video.dataset.manifest import Manifest, StageRef
from share4video.dataset.shards import parse_table, read_verified
from share4video.dataset.tombstones import FOLDER, Succession, Tombstone, Tombstones
from share4video.errors import UserError
from share4video.stages.takedown_rows import Without
from share4video.store import Store

_PART = re.compile(r"(?P<table>\w+)/part-\d+\.parquet")
_OUTPUT = re.compile(r"(?P<prefix>[\w-]+/[0-9a-f]{20})/(?P<name>.+)")
_MANIFEST = re.compile(r"[\w-]+/[0-9a-f]{20}/manifest\.json")
_IDS = ("clip_id", "other_id", "nearest_kept_id")


def tombstones_for(
    store: Store, manifests: Sequence[Manifest], wanted: Sequence[str], reason: str, known: Tombstones
) -> Tombstones:
    """Return the store's list with the wanted clips, and with other clips of the same pictures."""
    found: dict[str, Tombstone] = {}
    for row in _clip_rows(store, manifests):
        if row["clip_id"] in wanted and row["clip_id"] not in known.by_id:
            _add(found, row, reason, content_hash=row["content_hash"] or None)
    for clip_id in wanted:
        if clip_id not in known.by_id:
            found.setdefault(clip_id, Tombstone(clip_id=clip_id, reason=reason))
    stones = Tombstones([*known.by_id.values(), *found.values()])
    others: dict[str, Tombstone] = {}
    for row in _clip_rows(store, manifests):
        covered = stones.covers(row["content_hash"], row["start_s"], row["end_s"])
        if covered and row["clip_id"] not in stones.by_id:
            _add(others, row, "it shares pictures with a clip that was taken down", content_hash=None)
    return Tombstones([*stones.by_id.values(), *others.values()])


def _add(
    stones: dict[str, Tombstone], row: Mapping[str, Any], reason: str, *, content_hash: str | None
) -> None:
    """Add a row of table ``clips`` to the tombstones; one clip may be several rows."""
    clip_id = row["clip_id"]
    rows = {*stones[clip_id].row_ids, row["row_id"]} if clip_id in stones else {row["row_id"]}
    stones[clip_id] = Tombstone(
        clip_id=clip_id,
        reason=reason,
        content_hash=content_hash,
        start_s=row["start_s"],
        end_s=row["end_s"],
        row_ids=tuple(sorted(rows)),
    )


def _clip_rows(store: Store, manifests: Sequence[Manifest]) -> Iterator[dict[str, Any]]:
    columns = ["clip_id", "row_id", "content_hash", "start_s", "end_s"]
    for manifest in manifests:
        for part in manifest.parts:
            if part.table != "clips":
                continue
            try:
                data = read_verified(store, manifest.ref, part.path, part.sha256)
            except UserError:
                continue  # told of later
            yield from parse_table(data).select(columns).to_pylist()


def holding(
    store: Store, manifests: Sequence[Manifest], stones: Tombstones, seen: set[str]
) -> tuple[list[Manifest], list[str]]:
    """Return the outputs that hold the clips, or that name one which does, in order of their making.

    Args:
        seen: gets the ids that were found.

    Returns:
        The outputs, and the damaged ones that may hold them.
    """
    readable = {f"{manifest.ref.prefix}/manifest.json" for manifest in manifests}
    held, unreadable = [], [key for key in store.list("") if _MANIFEST.fullmatch(key) and key not in readable]
    for manifest in manifests:
        try:
            if _holds(store, manifest, stones, seen):
                held.append(manifest)
        except UserError:
            unreadable.append(str(manifest.ref))
    while True:
        refs, hashes = {str(m.ref) for m in held}, {m.content_hash for m in held}
        named = [
            manifest
            for manifest in manifests
            if manifest not in held
            and (
                refs & {value for value in manifest.config.values() if isinstance(value, str)}
                or (manifest.config.get("shuffle_captions") and hashes & set(manifest.inputs))
            )
        ]
        if not named:
            return _ordered(held), unreadable
        held += named


def _holds(store: Store, manifest: Manifest, stones: Tombstones, seen: set[str]) -> bool:
    without = Without(stones, manifest.stage)
    for part in manifest.parts:
        table = parse_table(read_verified(store, manifest.ref, part.path, part.sha256))
        names = [name for name in table.column_names if name != "jpeg"]
        if part.table not in ("scans", "rejects"):
            names = [name for name in names if name in _IDS]
        if part.table == "sft":
            names += ["sample_id", "image", "video"]
        if names:
            without.table(part.table, table.select(names))
    seen |= without.removed.names
    return without.removed.rows > 0


def _ordered(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Return outputs after those they are made from."""
    left, order = list(manifests), list[Manifest]()
    while left:
        ready = [m for m in left if not any(_is_made_from(m, other) for other in left)]
        ready = ready or left[:1]  # never so: nothing is made from itself
        order += ready
        left = [manifest for manifest in left if manifest not in ready]
    return order


def _is_made_from(manifest: Manifest, other: Manifest) -> bool:
    if manifest.stage == "probe":  # it names what was scanned by its rows
        return other.stage == "scan"
    return manifest.content_hash != other.content_hash and (
        other.content_hash in manifest.inputs or str(other.ref) in manifest.config.values()
    )


def trained_on(
    manifests: Sequence[Manifest], affected: Sequence[Manifest], known: Sequence[Succession], clips: list[str]
) -> list[tuple[str, str]]:
    """Return the trained models that saw the clips, each with the names it is registered under."""
    hashes = {manifest.content_hash for manifest in affected}
    hashes |= {_hash(each.old) for each in known if set(clips) & set(each.clips)}
    while older := {_hash(each.old) for each in known if each.new and _hash(each.new) in hashes} - hashes:
        hashes |= older
    found = []
    for model in manifests:
        if model.stage == "train" and hashes & set(model.inputs):
            names = {
                str(release.config.get("@name"))
                for release in manifests
                if release.stage == "release" and model.content_hash in release.inputs[:1]
            }
            found.append((str(model.ref), ", ".join(sorted(names))))
    return found


def _hash(ref: str) -> str:
    return StageRef.parse(ref).content_hash


def unfinished(store: Store, stones: Tombstones) -> Iterator[tuple[str, list[str]]]:
    """Yield the unfinished outputs that may hold the clips, with their keys."""
    outputs: dict[str, list[str]] = {}
    for key in store.list(""):
        match = _OUTPUT.fullmatch(key)
        if match and not key.startswith((f"{FOLDER}/", "locks/", "training-states/")):
            outputs.setdefault(match["prefix"], []).append(key)
    for prefix, keys in sorted(outputs.items()):
        if f"{prefix}/manifest.json" not in keys and _may_hold(store, prefix, keys, stones):
            yield prefix, keys


def _may_hold(store: Store, prefix: str, keys: Collection[str], stones: Tombstones) -> bool:
    without = Without(stones, prefix.partition("/")[0])
    others = False
    for key in keys:
        name = key.removeprefix(f"{prefix}/")
        part = _PART.fullmatch(name)
        if part is not None:
            try:
                without.table(part["table"], parse_table(store.get(key)))
            except (KeyError, pa.ArrowException):
                return True
        elif not name.startswith("shards/"):
            others = others or not without.is_clean_text(name, store.get(key))
    return others or without.removed.rows > 0
