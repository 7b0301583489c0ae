"""An output to commit shards of, and rows for it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from share4video.config import GateConfig
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.store import Store


def an_output(store: Store, **changes: Any) -> ShardSet:
    recipe: dict[str, Any] = {"inputs": ["a"], "config": GateConfig(), **changes}
    return ShardSet(store, "stage", "1", **recipe)


def briefs(*clip_ids: str) -> pa.Table:
    return table_from_rows(
        "brief_captions",
        [{"clip_id": clip_id, "caption": "a", "embedding": [0.5], "shift_s": None} for clip_id in clip_ids],
    )
