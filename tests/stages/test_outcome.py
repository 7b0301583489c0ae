"""When failures fail a stage, and what is said of them."""

from __future__ import annotations

import pytest

from share4video.config import ProbeConfig
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.errors import UserError
from share4video.stages.contract import StageResult
from share4video.stages.outcome import refuse_failures
from share4video.store import LocalStore

REASONS = ("too_short", "too_short", "too_short", "unreadable", "decode_timeout", "decode_timeout")


def published(store: LocalStore) -> StageResult:
    """Publish a stage of ten rows with six rejects, three of them failures."""
    rows = [
        {
            "row_id": str(number),
            "source_uri": f"{number}.mp4",
            "source_id": None,
            "clip_id": None,
            "stage": "probe",
            "reason": reason,
            "sentence": f"it is {reason}",
            "measured": None,
            "bound": None,
        }
        for number, reason in enumerate(REASONS)
    ]
    counts = {f"reject:{reason}": REASONS.count(reason) for reason in REASONS}
    output = ShardSet(store, "probe", "test", inputs=[], config=ProbeConfig())
    output.commit(0, {"rejects": table_from_rows("rejects", rows)}, {"rows_in": 10, "rows_out": 4, **counts})
    return StageResult.from_manifest(output.publish(1), computed_shards=1, total_shards=1)


def test_the_bound_is_on_failures_alone(store: LocalStore) -> None:
    result = published(store)
    refuse_failures(result, store, max_share=0.3, setting="probe.max_failed_share", where="videos")
    with pytest.raises(UserError) as caught:
        refuse_failures(result, store, max_share=0.29, setting="probe.max_failed_share", where="videos")
    assert caught.value.sentence() == (
        "3 of 10 rows failed, over the 29% allowed, 2 of them as decode_timeout (videos): mend them or raise"
        " probe.max_failed_share; for one, 4.mp4: it is decode_timeout."
    )


def test_a_stage_says_what_its_failures_are(store: LocalStore) -> None:
    result = published(store)
    with pytest.raises(UserError, match="3 of 10 rows failed, over the 0% allowed, 3 of them as too_short"):
        refuse_failures(
            result, store, max_share=0, setting="s", where="w", failures=frozenset({"too_short", "other"})
        )
    refuse_failures(result, store, max_share=0, setting="s", where="w", failures=frozenset({"other"}))
