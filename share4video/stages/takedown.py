"""Take clips out of everything a store holds of them, and keep them out.

First the clips are put on the store's list (`share4video.dataset.tombstones`): from then on no stage takes
them in, and readers leave them out. Then every published output that holds rows of them is published anew
without them, and the old one is deleted; what is unfinished and may hold them is deleted. Models that were
trained on them are named and stay as they are.

What left the store is not reached: exported folders, report pages, copies of the store, models elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field

from share4video.captioning import journal
from share4video.dataset.manifest import Manifest, StageRef
from share4video.dataset.outputs import stored_manifests
from share4video.dataset.tombstones import (
    Succession,
    Tombstones,
    bury,
    checked_id,
    record,
    succession_of,
    successions,
)
from share4video.errors import UserError
from share4video.media.sources.cache import LocalCopies
from share4video.stages.takedown_outputs import Renamed, delete_output, known_by_new_inputs, rewrite
from share4video.stages.takedown_search import holding, tombstones_for, trained_on, unfinished
from share4video.store import Store

LOCK = "locks/takedown"
# Stages whose outputs, where they hold nothing of a clip, are the same as if it had never been.
_PER_CLIP = frozenset(
    {"probe", "brief", "looks", "neighbours", "dedup", "keyframes", "caption", "dataset", "mixture"}
)


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
        stones = tombstones_for(store, manifests, wanted, reason, known)
        done = Takedown(clips=sorted(set(wanted) | (set(stones.by_id) - set(known.by_id))))
        seen = set(known.by_id)
        affected, done.unreadable = holding(store, manifests, stones, seen)
        _check_known(wanted, seen)
        if not dry_run:
            for stone in stones.by_id.values():
                bury(store, stone)
        done.models = trained_on(manifests, affected, successions(store), done.clips)
        if dry_run:
            done.rewritten = [(str(manifest.ref), "") for manifest in affected]
            done.deleted = [prefix for prefix, _ in unfinished(store, stones)]
            return done
        _rewrite(store, manifests, affected, stones, done, say)
        for prefix, _ in list(unfinished(store, stones)):
            say(f"delete unfinished {prefix}")
            _delete_unfinished(store, prefix)
            done.deleted.append(prefix)
        done.journal_lines = journal.forget(stones.by_id)
        _forget_copies(stones)
    return done


def _finish(store: Store) -> None:
    """Delete what an earlier takedown had replaced when it was killed."""
    for succession in successions(store):
        prefix = StageRef.parse(succession.old).prefix
        last = succession_of(store, prefix)
        if last is not None and last.new is not None:  # else its stage may publish it there again
            delete_output(store, prefix)


def _rewrite(
    store: Store,
    manifests: Sequence[Manifest],
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
    for manifest in manifests:
        kept = manifest.stage in _PER_CLIP and manifest not in affected
        if kept and (alias := known_by_new_inputs(store, manifest, renamed)) is not None:
            record(store, alias)


def _check_known(wanted: Sequence[str], seen: Collection[str]) -> None:
    """Refuse an id that the store holds nothing of; a slip of the pen would look like a success."""
    for clip_id in wanted:
        if clip_id not in seen:
            raise UserError(
                "the store holds nothing of this clip",
                where=clip_id,
                fix="look its id up in table clips of a dataset",
            )


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
