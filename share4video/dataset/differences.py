"""What one version of a dataset has beside another, clip by clip."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

from share4video.dataset.manifest import StageRef, canonical_json
from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.store import Store

_TABLES = ("clips", "differentials", "captions")


@dataclass(frozen=True)
class Differences:
    """Ids of clips in order; ``same`` counts those of which both versions hold the same rows."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    same: int


def differences(store: Store, old: StageRef, new: StageRef) -> Differences:
    """Compare two versions by the rows of their clips.

    Raises:
        UserError: one is missing, damaged or no dataset.
    """
    for ref in (old, new):
        if ref.stage != "dataset":
            raise UserError(
                f"the output of stage {ref.stage} is no dataset",
                where=str(ref),
                fix="name one of stage dataset",
            )
    before, after = _digests(store, old), _digests(store, new)
    both = before.keys() & after.keys()
    changed = sorted(clip_id for clip_id in both if before[clip_id] != after[clip_id])
    return Differences(
        added=sorted(after.keys() - before.keys()),
        removed=sorted(before.keys() - after.keys()),
        changed=changed,
        same=len(both) - len(changed),
    )


def _digests(store: Store, ref: StageRef) -> dict[str, bytes]:
    """Return a hash of all rows of each clip."""
    hashers: defaultdict[str, hashlib._Hash] = defaultdict(hashlib.sha256)
    for name in _TABLES:
        for row in read_table(store, ref, name).to_pylist():
            hashers[row["clip_id"]].update(canonical_json([name, row]))
    return {clip_id: hasher.digest() for clip_id, hasher in hashers.items()}
