"""Captions that a published dataset holds of clips, as the caption stage publishes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from share4video.dataset.manifest import StageRef
from share4video.dataset.published import clip_rows
from share4video.dataset.shards import read_table
from share4video.store import Store

_OTHER_STAGES = ("brief", "sliding")  # roles the dataset stage has from elsewhere


def published_clips(store: Store, dataset: StageRef | None) -> frozenset[str]:
    """Return the ids of the clips that ``dataset`` holds; none where there is no dataset.

    Raises:
        UserError: the dataset is missing or damaged.
    """
    if dataset is None:
        return frozenset()
    return frozenset(read_table(store, dataset, "clips", columns=["clip_id"])["clip_id"].to_pylist())


class PublishedCaptions:
    """The captions that ``dataset`` holds of some clips; of none where there is no dataset.

    One part of the dataset is in memory at a time, as Arrow, and the rows of these clips.

    Raises:
        UserError: the dataset is missing or damaged.
    """

    def __init__(self, store: Store, dataset: StageRef | None, clip_ids: Sequence[str]) -> None:
        self.differentials: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.captions: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        if dataset is None or not clip_ids:
            return
        for name, rows in (("differentials", self.differentials), ("captions", self.captions)):
            for row in clip_rows(store, dataset, name, clip_ids):
                if row.get("role") not in _OTHER_STAGES:
                    rows[row["clip_id"]].append(row)
