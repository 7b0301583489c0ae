"""Take clips out of everything a store holds of them, and keep them out.

First the clips are put on the store's list (`share4video.dataset.tombstones`): from then on no stage takes
them in, and readers leave them out. Then every published output that holds rows of them is published anew
without them, and the old one is deleted; what is unfinished and may hold them is deleted. Models that were
trained on them are named and stay as they are.

What left the store is not reached: exported folders, report pages, copies of the store, models elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from share4video.captioning import journal
from share4video.dataset.manifest import Manifest, StageRef
from share4video.dataset.outputs import stored_manifests
from share4video.dataset.shards import parse_table, read_verified
from share4video.dataset.tombstones import (
    FOLDER,
    Succession,
    Tombstone,
    Tombstones,
    bury,
    checked_id,
    record,
    successions,
)
from share4video.errors import UserError
from share4video.media.sources.cache import LocalCopies
from share4video.stages.takedown_outputs import Renamed, delete_output, rewrite
from share4video.stages.takedown_rows import Without
from share4video.store import Store

LOCK = "locks/takedown"
_PART = re.compile(r"(?P<table>\w+)/part-\d+\.parquet")
_OUTPUT = re.compile(r"(?P<prefix>[\w-]+/[0-9a-f]{20})/(?P<name>.+)")


@dataclass
class Takedown:
    """What a takedown did, or would do.

    Attributes:
        clips: the clips that are on the store's list for it, others of the same pictures among them.
        rewritten: outputs that held them, with what replaced each; empty where nothing was done yet.
        deleted: outputs that cannot be written without them, and unfinished ones that may hold them.
        models: outputs of training that saw them, with the names they are registered under.
        unreadable: damaged outputs that may hold them.
        journal_lines: answers of models that were dropped from this machine's journals.
    """

    clips: list[str] = field(default_factory=list)
    rewritten: list[tuple[str, str]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    models: list[tuple[str, str]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    journal_lines: int = 0


def take_down(
    store: Store,
    clip_ids: Sequence[str],
    reason: str,
    *,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Takedown:
    """Take clips out of the store; killed at any moment and run again it completes.

    Waits for what is being written and may hold them.

    Args:
        reason: kept beside the clips in the list.
        dry_run: change nothing and say what would change.
        say: told what is being done.

    Raises:
        UserError: the store holds nothing of a clip, or the list cannot be written.
    """
    wanted = [checked_id(clip_id) for clip_id in clip_ids]
    with nullcontext() if dry_run else store.lock(LOCK):
        known = Tombstones.of(store)
        if not dry_run:
            _finish(store)
        manifests = list(stored_manifests(store))
        stones = _stones(store, manifests, wanted, reason, known)
        done = Takedown(clips=sorted(set(wanted) | (set(stones.by_id) - set(known.by_id))))
        seen = set(known.by_id)
        affected = _affected(store, manifests, stones, done, seen)
        _check_known(wanted, seen)
        if not dry_run:
            for stone in stones.by_id.values():
                bury(store, stone)
        done.models = _models(manifests, affected, successions(store), done.clips)
        if dry_run:
            done.rewritten = [(str(manifest.ref), "") for manifest in affected]
            done.deleted = [prefix for prefix, _ in _unfinished(store, stones)]
            return done
        _rewrite(store, affected, stones, done, say)
        for prefix, _ in list(_unfinished(store, stones)):
            say(f"delete unfinished {prefix}")
            _delete_unfinished(store, prefix)
            done.deleted.append(prefix)
        done.journal_lines = journal.forget(stones.by_id)
        _forget_copies(stones)
    return done


def _finish(store: Store) -> None:
    """Delete what an earlier takedown had replaced when it was killed."""
    for succession in successions(store):
        if succession.new is not None:
            delete_output(store, StageRef.parse(succession.old).prefix)


def _stones(
    store: Store, manifests: Sequence[Manifest], wanted: Sequence[str], reason: str, known: Tombstones
) -> Tombstones:
    """Return the store's list with the wanted clips, and with other clips of the same pictures."""
    found: dict[str, Tombstone] = {}
    for row in _clip_rows(store, manifests):
        if row["clip_id"] in wanted and row["clip_id"] not in known.by_id:
            _add(found, row, reason, content_hash=row["content_hash"])
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


def _affected(
    store: Store, manifests: Sequence[Manifest], stones: Tombstones, done: Takedown, seen: set[str]
) -> list[Manifest]:
    """Return the outputs that hold the clips, or that name one which does, in order of their making.

    Args:
        seen: gets the ids that were found.
    """
    held = []
    for manifest in manifests:
        try:
            if _holds(store, manifest, stones, seen):
                held.append(manifest)
        except UserError:
            done.unreadable.append(str(manifest.ref))
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
            return _ordered(held)
        held += named


def _holds(store: Store, manifest: Manifest, stones: Tombstones, seen: set[str]) -> bool:
    without = Without(stones, manifest.stage)
    for part in manifest.parts:
        table = parse_table(read_verified(store, manifest.ref, part.path, part.sha256))
        names = [name for name in table.column_names if name != "jpeg"]
        if part.table not in ("scans", "rejects"):
            names = [name for name in names if name in ("clip_id", "other_id", "nearest_kept_id")]
        if part.table == "sft":
            names += ["sample_id", "image"]
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


def _rewrite(
    store: Store,
    affected: Sequence[Manifest],
    stones: Tombstones,
    done: Takedown,
    say: Callable[[str], None],
) -> None:
    renamed = Renamed(successions(store))
    for manifest in affected:
        say(f"rewrite {manifest.ref}")
        if manifest.config.get("shuffle_captions"):  # other clips bear its captions
            became = Succession(old=str(manifest.ref), new=None, clips=tuple(sorted(stones.by_id)))
            done.deleted.append(str(manifest.ref))
        else:
            became = rewrite(store, manifest, stones, renamed)
            done.rewritten.append((became.old, str(became.new)))
        record(store, became)
        renamed.add(became)
        delete_output(store, manifest.ref.prefix)


def _models(
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


def _check_known(wanted: Sequence[str], seen: Collection[str]) -> None:
    """Refuse an id that the store holds nothing of; a slip of the pen would look like a success."""
    for clip_id in wanted:
        if clip_id not in seen:
            raise UserError(
                "the store holds nothing of this clip",
                where=clip_id,
                fix="look its id up in table clips of a dataset",
            )


def _unfinished(store: Store, stones: Tombstones) -> Iterator[tuple[str, list[str]]]:
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


def _delete_unfinished(store: Store, prefix: str) -> None:
    """Delete an unfinished output; whoever writes it is waited for."""
    shards = {key.rpartition("/")[0] for key in store.list(f"locks/{prefix}")}
    with ExitStack() as stack:
        for shard in sorted(shards):
            stack.enter_context(store.lock(shard))
        if not store.exists(f"{prefix}/manifest.json"):
            delete_output(store, prefix)


def _forget_copies(stones: Tombstones) -> None:
    """Remove this machine's copies of the files; one that is needed is made again."""
    copies = LocalCopies.of_environment()
    for stone in stones.by_id.values():
        if stone.content_hash is not None and re.fullmatch("[0-9a-f]{64}", stone.content_hash):
            (copies.folder / stone.content_hash).unlink(missing_ok=True)
