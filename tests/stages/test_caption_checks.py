"""The caption stage with what captions are held against beside their text: a CLIP, a judge."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from share4video.captioning.client import ChatClient
from share4video.captioning.conversations import CAPTIONER, SUMMARIZER, CaptionPlan, ClipConversation
from share4video.captioning.journal import open_journal
from share4video.captioning.scheduler import Conversation, Finished, converse
from share4video.config import CaptionConfig, ChecksConfig
from share4video.curation.frame_text import frame_text_scores
from share4video.errors import UserError
from share4video.stages.caption import CaptionInputs, finish, plan, run_shard, run_stage
from share4video.store import LocalStore
from tests.captioning.talks import ListedJobs
from tests.curation.tiny_clip import add_tiny_clip
from tests.engines import FakeEngine, frames, picture, running_fake_engine
from tests.evaluation.engine_host import engine_host
from tests.stages.caption_material import LENGTHS, inputs_of, publish_inputs, rows_of

VERDICT = {"omissions_fabrications": 1, "distortion": 1, "temporal_mismatch": 0, "reason": "Too late."}


@pytest.mark.timeout(600)
def test_every_key_frames_caption_has_its_score(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path, tmp_path: Path
) -> None:
    checks = ChecksConfig(frame_text_encoder=add_tiny_clip(tmp_path))
    inputs = inputs_of(store, fake_engine.spec(), lengths=[3, 2])
    result = run_stage(inputs, CaptionConfig(checks=checks), store)
    rows = sorted(rows_of(store, result, "differentials"), key=lambda row: (row["clip_id"], row["index"]))
    assert len(rows) == 5
    assert all(not row["checks"] for row in rows)
    score = frame_text_scores(str(checks.frame_text_encoder)).scorer([picture("rgb(0, 20, 0)")])
    assert rows[1]["frame_text_score"] == pytest.approx(score(0, rows[1]["caption"]), abs=1e-4)

    strict = checks.model_copy(update={"min_frame_text_score": 1.0})
    fake_engine.settings()
    failing = run_stage(inputs, CaptionConfig(checks=strict, max_fallback_share=1.0), store)
    assert failing.ref.key != result.ref.key
    rows = rows_of(store, failing, "differentials")
    assert all(row["checks"] == ["frame_text"] and row["attempt"] == 1 and row["fallback"] for row in rows)
    assert len([call for call in fake_engine.calls() if call["images"]]) == 2 * (5 + 3)  # twice, then anchors


def test_the_judge_rates_a_share_of_the_clips(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    clips, keyframes = publish_inputs(store, LENGTHS)
    with engine_host() as host:
        answers = iter([json.dumps(VERDICT), "no JSON", "no JSON again", *[json.dumps(VERDICT)] * 9])
        host.answer = lambda _: next(answers)
        judge = host.spec(model="judge", revision="7", max_in_flight=1)
        config = CaptionConfig(checks=ChecksConfig(judge=judge, judge_share=1.0))
        inputs = CaptionInputs(clips, keyframes, fake_engine.spec())
        result = run_stage(inputs, config, store)
        asked = len(host.seen)
    rows = rows_of(store, result, "judgements")
    assert len(rows) == len(LENGTHS)
    assert asked == len(LENGTHS) + 1
    assert {(row["engine"], row["role"], row["prompt_version"]) for row in rows} == {
        ("judge@7", "summary", "judge-1")
    }
    (unread,) = [row for row in rows if row["score"] is None]
    assert "JSON" in unread["reason"]
    assert all(row["score"] == 2 and row["temporal_mismatch"] == 0 for row in rows if row is not unread)
    metrics = result.metrics
    assert (metrics["judged"], metrics["judge_unparsable"]) == (6, 1)
    assert (metrics["judge_score"], metrics["judge_score_low"], metrics["judge_score_high"]) == (2, 2, 2)
    assert metrics["judge_temporal_mismatch"] == 0
    assert run_stage(inputs, config, store).metrics == metrics  # and nobody was asked: the judge is gone


def test_a_judge_that_takes_no_system_message_is_sent_none(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    inputs = inputs_of(store, fake_engine.spec(), lengths=[1])
    with engine_host() as host:
        host.answer = lambda _: json.dumps(VERDICT)
        judge = host.spec(model="judge", revision="7", system_message=False)
        config = CaptionConfig(checks=ChecksConfig(judge=judge, judge_share=1.0))
        result = run_stage(inputs, config, store)
        told = judge.model_copy(update={"system_message": True})
        again = CaptionConfig(checks=ChecksConfig(judge=told, judge_share=1.0))
        assert run_stage(inputs, again, store).ref.key != result.ref.key
        untold, usual = host.seen
    (asked,) = untold["messages"]
    system, user = usual["messages"]
    assert (asked["role"], system["role"], user["role"]) == ("user", "system", "user")
    assert asked["content"] == [{"type": "text", "text": system["content"] + "\n\n"}, *user["content"]]
    (row,) = rows_of(store, result, "judgements")
    assert (row["prompt_version"], row["score"]) == ("judge-1+nosystem", 2)


def test_where_a_judge_is_does_not_name_the_output(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    inputs = inputs_of(store, fake_engine.spec(), lengths=[1, 1])

    def key(**judge: Any) -> str:
        with running_fake_engine() as other:
            other.settings(answer=json.dumps(VERDICT))
            config = CaptionConfig(checks=ChecksConfig(judge=other.spec(**judge), judge_share=1.0))
            for shard in plan(inputs, config, store):
                run_shard(inputs, config, store, shard)
            result = finish(inputs, config, store)
        assert result.metrics["judge_score"] == 2
        return result.ref.key

    assert key(model="judge") == key(model="judge")
    assert key(model="judge", revision="2") != key(model="judge")
    assert b"127.0.0.1" not in b"".join(store.get(name) for name in store.list("caption"))


def test_the_judge_is_counted_priced_and_kept_to_the_budget(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    inputs = inputs_of(store, fake_engine.spec(), lengths=[1, 1, 1], parts=1)
    with running_fake_engine() as other:
        other.settings(answer=json.dumps(VERDICT))
        judge = other.spec(model="judge", max_in_flight=1, prompt_price=1e6)
        config = CaptionConfig(checks=ChecksConfig(judge=judge, judge_share=1.0))
        with pytest.raises(UserError, match="the budget is spent"):
            run_stage(inputs, config.model_copy(update={"max_cost": 7.0}), store)
        assert len(other.calls()) == 1
        result = run_stage(inputs, config.model_copy(update={"max_cost": 7.0 * 9}), store)
        assert len(other.calls()) == 3
    assert result.metrics["judge_prompt_tokens"] == 3 * 7
    assert result.metrics["judge_completion_tokens"] == 3 * len(json.dumps(VERDICT).split())
    assert result.metrics["cost"] == pytest.approx(3 * 7)


def test_what_waits_for_a_clip_holds_up_nobody_else(fake_engine: FakeEngine, work_root: Path) -> None:
    """Two clips' captions are weighed at the same time: in one thread, neither would ever be through."""
    both = threading.Barrier(2, timeout=20)

    class Meeting:
        def scorer(self, frames: Sequence[bytes]) -> Callable[[int, str], float]:
            def score(index: int, text: str) -> float:
                both.wait()
                return 1.0

            return score

    plan = CaptionPlan.of(CaptionConfig(), fake_engine.spec(), None)

    def job(name: str) -> tuple[str, int, Callable[[], Conversation]]:
        return name, 2, lambda: ClipConversation(name, frames(1), plan, Meeting())

    through: list[Finished] = []

    async def converse_all() -> None:
        async with ChatClient(fake_engine.endpoint(max_in_flight=2)) as client:
            with open_journal("out") as journal:
                clients = {CAPTIONER: client, SUMMARIZER: client}
                await converse(ListedJobs(job("one"), job("two")), clients, journal, through.append)

    asyncio.run(converse_all())
    assert len(through) == 2
