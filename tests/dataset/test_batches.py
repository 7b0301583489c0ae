from __future__ import annotations

from pathlib import Path

import pytest

from share4video.config import Config
from share4video.dataset.batches import local_part, part_batches
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.errors import UserError
from share4video.store import LocalStore, Store

ROWS = [
    {"clip_id": f"{n}", "index": 0, "timestamp_s": float(n), "similarity": None, "jpeg": bytes([n % 256]) * n}
    for n in range(100)
]


def publish(store: Store) -> StageRef:
    output = ShardSet(store, "keyframes", "1", inputs=[], config=Config())
    output.commit(0, {"keyframes": table_from_rows("keyframes", ROWS)})
    return output.publish(1).ref


def test_a_part_is_read_a_few_rows_at_a_time(store: LocalStore, tmp_path: Path) -> None:
    ref = publish(store)
    (part,) = load_manifest(store, ref).parts
    with local_part(store, ref, part, tmp_path / "part") as path:
        batches = list(part_batches(path, 30))
        assert [batch.num_rows for batch in batches] == [30, 30, 30, 10]
        assert [row for batch in batches for row in batch.to_pylist()] == ROWS
        narrow = list(part_batches(path, 1000, ["timestamp_s"]))
        assert [row for batch in narrow for row in batch.to_pylist()] == [
            {"timestamp_s": row["timestamp_s"]} for row in ROWS
        ]
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize("data", [b"", None])
def test_a_part_that_is_not_what_was_published_is_refused(
    store: LocalStore, tmp_path: Path, data: bytes | None
) -> None:
    ref = publish(store)
    (part,) = load_manifest(store, ref).parts
    key = f"{ref.prefix}/{part.path}"
    if data is None:
        store.delete(key)
    else:
        store.put(key, store.get(key) + b"more")
    with pytest.raises(UserError), local_part(store, ref, part, tmp_path / "part"):
        pass
    assert not (tmp_path / "part").exists()
