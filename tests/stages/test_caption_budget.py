"""What the caption stage may spend: tokens, money, time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from share4video.config import CaptionConfig
from share4video.errors import UserError
from share4video.stages.caption import plan, run_shard, run_stage
from share4video.store import LocalStore
from tests.engines import FakeEngine
from tests.stages.caption_material import (
    CONFIG,
    LENGTHS,
    files_of,
    inputs_of,
    rows_of,
)


def test_answers_are_counted_and_priced(store: LocalStore, fake_engine: FakeEngine, work_root: Path) -> None:
    inputs = inputs_of(store, fake_engine.spec(prompt_price=1e6, completion_price=1e4))
    calls = sum(LENGTHS) + len(LENGTHS)
    result = run_stage(inputs, CONFIG, store)
    assert result.metrics["cost"] == pytest.approx(calls * (7 + 5 / 100))
    free = run_stage(replace(inputs, captioner=fake_engine.spec()), CONFIG, store)
    assert free.unchanged  # what it costs is not what it is
    assert "cost" not in free.metrics


def test_answers_of_rejected_clips_and_of_runs_before_are_counted(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    inputs = inputs_of(store, fake_engine.spec(max_in_flight=1, retries=0))
    poison = "Video frame 2 at 2.50 Second(s) and Video frame 3"
    fake_engine.settings(bad_prompt=poison, first_status=[0] * 9 + [500] * 99)
    with pytest.raises(UserError, match="does not answer"):
        run_stage(inputs, CONFIG, store)
    answered = sum(call["answered"] for call in fake_engine.calls())
    fake_engine.settings(bad_prompt=poison)
    result = run_stage(inputs, CONFIG, store)
    assert result.rejects == {"caption_failed": 2}
    answered += sum(call["answered"] for call in fake_engine.calls())
    spent = sum(v for k, v in result.metrics.items() if k.endswith("prompt_tokens"))
    assert spent == 7 * answered


@pytest.mark.parametrize("setting", ["max_tokens_total", "max_cost"])
def test_a_spent_budget_stops_the_run_and_a_larger_one_goes_on(
    store: LocalStore, tmp_path: Path, fake_engine: FakeEngine, work_root: Path, setting: str
) -> None:
    calm = LocalStore(tmp_path / "calm")
    expected = run_stage(inputs_of(calm, fake_engine.spec()), CONFIG, calm)
    fake_engine.settings()
    inputs = inputs_of(store, fake_engine.spec(max_in_flight=2, prompt_price=1e6))
    per_call = 12 if setting == "max_tokens_total" else 7
    committed = []
    for calls in (4, 15):
        with pytest.raises(UserError, match="the budget is spent: ") as caught:
            run_stage(inputs, CONFIG.model_copy(update={setting: per_call * calls}), store)
        assert caught.value.where == f"caption.{setting} {per_call * calls}"
        assert calls <= len(fake_engine.calls()) < calls + 2
        committed.append(len([key for key in store.list("caption") if "/shards/" in key]))
    assert committed == [0, 1]  # what is finished stays so
    result = run_stage(inputs, CONFIG.model_copy(update={setting: per_call * 1000}), store)
    assert result.ref == expected.ref
    assert files_of(store, result.ref) == files_of(calm, expected.ref)
    assert len(fake_engine.calls()) == sum(LENGTHS) + len(LENGTHS)


def test_shards_side_by_side_keep_to_a_budget_together(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    inputs = inputs_of(store, fake_engine.spec(max_in_flight=1))
    config = CONFIG.model_copy(update={"max_tokens_total": 12 * 10})
    for shard in plan(inputs, config, store):
        with pytest.raises(UserError, match=r"the budget is spent: .* was for this shard"):
            run_shard(inputs, config, store, shard)
    assert 10 <= len(fake_engine.calls()) <= 12


def test_a_clip_over_its_time_is_a_reject(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    fake_engine.settings(latency_s=0.3)
    config = CaptionConfig(shards=1, clip_timeout_s=1.6)
    result = run_stage(inputs_of(store, fake_engine.spec(), lengths=[1, 8, 1], parts=1), config, store)
    assert (result.rows_in, result.rows_out, result.rejects) == (3, 2, {"caption_failed": 1})
    (reject,) = rows_of(store, result, "rejects")
    assert reject["row_id"] == "row-01"
    assert reject["sentence"] == "the clip's calls took longer than they may, in seconds"
    assert reject["bound"] == 1.6
    assert reject["measured"] is None  # it would be another in every run
