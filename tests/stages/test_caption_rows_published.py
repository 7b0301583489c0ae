"""Captions taken over from a published dataset of many parts."""

from __future__ import annotations

from random import Random
from typing import Any

import pyarrow as pa

from share4video.dataset.manifest import StageRef
from share4video.dataset.schema import TABLES
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.stages.caption_rows_published import PublishedCaptions
from share4video.store import LocalStore, Store
from tests.stages.caption_material import CONFIG

LETTERS, PARTS = 1_000_000, 12


def caption_of(number: int) -> str:
    return Random(number).randbytes(LETTERS // 2).hex()


def row_of(table: str, **given: Any) -> dict[str, Any]:
    """Return a row that says nothing beside what is given."""
    blank: dict[str, Any] = {}
    for field in TABLES[table]:
        kinds = {pa.types.is_list: [], pa.types.is_string: "", pa.types.is_boolean: False}
        blank[field.name] = next((value for is_kind, value in kinds.items() if is_kind(field.type)), 0)
    return blank | given


def publish(store: Store) -> StageRef:
    """Publish a dataset of one clip a part, with a long caption of each role."""
    output = ShardSet(store, "dataset", "1", inputs=["many parts"], config=CONFIG)
    for number in range(PARTS):
        given = {"clip_id": f"clip-{number:02d}", "caption": caption_of(number)}
        differential = row_of("differentials", **given)
        captions = [row_of("captions", **given, role=role) for role in ("summary", "brief")]
        output.commit(
            number,
            {
                "differentials": table_from_rows("differentials", [differential]),
                "captions": table_from_rows("captions", captions),
            },
        )
    return output.publish(PARTS).ref


def test_one_part_is_in_memory_at_a_time(store: LocalStore) -> None:
    ref = publish(store)
    kept, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counted)
    try:
        published = PublishedCaptions(store, ref, ["clip-03", "clip-07"])
    finally:
        pa.set_memory_pool(kept)
    for held in (published.differentials, published.captions):
        assert {clip: [row["caption"] for row in rows] for clip, rows in held.items()} == {
            f"clip-{number:02d}": [caption_of(number)] for number in (3, 7)
        }
    assert [row["role"] for row in published.captions["clip-03"]] == ["summary"]
    assert counted.max_memory() < 2 * PARTS * LETTERS
