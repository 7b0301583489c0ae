"""The stage contract: every row is answered for, and a second run reports what the first did."""

from __future__ import annotations

import pytest

from share4video.config import Config
from share4video.dataset.shards import ShardSet, StageRef
from share4video.stages.contract import StageResult
from share4video.store import LocalStore

REF = StageRef("stage", "key", "hash")


def test_rows_that_nobody_answers_for_are_an_error() -> None:
    StageResult(REF, rows_in=5, rows_out=2, rejects={"too_long": 2, "black": 1})
    with pytest.raises(RuntimeError, match="5 rows in, 4 answered for"):
        StageResult(REF, rows_in=5, rows_out=2, rejects={"too_long": 2})


def test_the_result_is_rebuilt_from_what_was_published(store: LocalStore) -> None:
    output = ShardSet(store, "stage", "1", inputs=[], config=Config())
    output.commit(0, {}, {"rows_in": 3, "rows_out": 1, "reject:black": 2, "metric:seconds_of_video": 1.5})
    output.commit(1, {}, {"rows_in": 2, "rows_out": 1, "reject:black": 1})
    result = StageResult.from_manifest(output.publish(2), computed_shards=2, total_shards=2)
    assert (result.rows_in, result.rows_out, result.rejects) == (5, 2, {"black": 3})
    assert result.metrics == {"seconds_of_video": 1.5}
    assert not result.unchanged
    again = output.published()
    assert again is not None
    second = StageResult.from_manifest(again, computed_shards=0, total_shards=2)
    assert second.unchanged
    assert (second.ref, second.rejects, second.metrics) == (result.ref, result.rejects, result.metrics)
