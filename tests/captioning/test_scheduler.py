from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from share4video.captioning.client import ChatClient
from share4video.captioning.conversations import (
    CAPTIONER,
    BriefConversation,
)
from share4video.captioning.differential import Chain
from share4video.captioning.journal import open_journal
from share4video.captioning.scheduler import Call, Conversation, Finished, converse
from share4video.captioning.spending import Budget
from share4video.errors import UserError
from tests.captioning.talks import LENGTHS, SIXTH, ListedJobs, caption, written
from tests.engines import FakeEngine, frames
from tests.fake_engine import CONTENT_FAULTS, FAULTS


def test_answers_in_any_order_land_on_their_own_clip_and_frame(
    fake_engine: FakeEngine, work_root: Path
) -> None:
    one_by_one = written(caption(fake_engine, LENGTHS, "calm", in_flight=1))
    fake_engine.settings(jitter_s=0.03)
    mixed = caption(fake_engine, LENGTHS, "mixed", in_flight=16)
    assert written(mixed) == one_by_one
    assert fake_engine.most_in_flight() <= 16
    assert len(fake_engine.calls()) == sum(LENGTHS) + len(LENGTHS)
    assert len({caption for captions in one_by_one.values() for caption in captions}) > len(LENGTHS)


def test_each_difference_is_told_what_the_one_before_it_said(
    fake_engine: FakeEngine, work_root: Path
) -> None:
    captions = written(caption(fake_engine, [4]))["clip-000"]
    prompts = [call["prompt"] for call in fake_engine.calls()]
    for before, prompt in zip(captions, prompts[1:4], strict=False):
        assert prompt.endswith(f"What happend before is: {before}")
    assert "Video frame 2 at 2.00 Second(s) and Video frame 3 at 4.00 Second(s)" in prompts[2]


def test_the_longest_chain_is_not_left_for_last(fake_engine: FakeEngine, work_root: Path) -> None:
    fake_engine.settings(latency_s=0.03)
    started = time.monotonic()
    caption(fake_engine, [1] * 20 + [20], in_flight=3)
    per_call = 0.03
    ideal = max(21 * per_call, (20 * 2 + 21) / 3 * per_call)
    first = fake_engine.calls()[:3]
    assert sum("first frame" in call["prompt"] for call in first) == 3
    assert (
        time.monotonic() - started < ideal * 3 + 3
    )  # last-in-line it would take 1.2 s more, and grows with it
    following = [call["prompt"] for call in fake_engine.calls()]
    longest = [n for n, prompt in enumerate(following) if "Video frame" in prompt and "Here are" in prompt]
    assert longest[0] < 6
    assert longest[-1] >= 25


@pytest.mark.parametrize("fault", FAULTS)
def test_one_kind_of_fault_in_every_fifth_answer(
    fake_engine: FakeEngine, work_root: Path, fault: str
) -> None:
    calm = written(caption(fake_engine, LENGTHS[:8], "calm"))
    fake_engine.settings(faults={fault: 0.2}, seed=1)
    assert written(caption(fake_engine, LENGTHS[:8], "faulty", request_timeout_s=1.5)) == calm


def test_all_kinds_of_faults_together(fake_engine: FakeEngine, work_root: Path) -> None:
    calm = written(caption(fake_engine, LENGTHS, "calm"))
    fake_engine.settings(faults=dict.fromkeys(FAULTS, 0.2 / len(FAULTS)), seed=2)
    assert written(caption(fake_engine, LENGTHS, "faulty", request_timeout_s=1.5)) == calm


@pytest.mark.parametrize("fault", CONTENT_FAULTS)
def test_one_kind_of_answer_that_is_no_good_in_every_fifth(
    fake_engine: FakeEngine, work_root: Path, fault: str
) -> None:
    fake_engine.settings(faults={fault: 0.2}, seed=3)
    chains = caption(fake_engine, LENGTHS)
    assert_captioned_or_rejected(chains)
    again = [call["body"] for call in fake_engine.calls() if "seed" in call["body"]]
    assert again
    assert {(body["temperature"], body["frequency_penalty"]) for body in again} == {(0.7, 0.3)}
    assert len({body["seed"] for body in again}) > 1
    captions = [d.caption for chain in chains.values() for d in chain.differentials]
    assert {caption.attempt for caption in captions} == {0, 1}


def test_every_kind_of_fault_and_of_answer_that_is_no_good_together(
    fake_engine: FakeEngine, work_root: Path
) -> None:
    kinds = (*FAULTS, *CONTENT_FAULTS)
    fake_engine.settings(faults=dict.fromkeys(kinds, 0.2 / len(kinds)), seed=5, jitter_s=0.03)
    assert_captioned_or_rejected(caption(fake_engine, LENGTHS, request_timeout_s=1.5))


def assert_captioned_or_rejected(chains: dict[str, Chain]) -> None:
    assert len(chains) == len(LENGTHS)
    for (_, chain), length in zip(sorted(chains.items()), LENGTHS, strict=True):
        if chain.rejection is not None:
            assert chain.rejection.sentence
        else:
            assert len(chain.differentials) == length
            assert chain.summary is not None
            assert all(d.text for d in chain.differentials) and chain.summary.text


def test_a_call_that_is_refused_costs_what_the_rules_say(fake_engine: FakeEngine, work_root: Path) -> None:
    fake_engine.settings(bad_prompt="Video frame 2 at 2.00 Second(s) and Video frame 3")
    chains = caption(fake_engine, [2, 3, 8])
    short, middle, long = (chains[f"clip-{n:03d}"] for n in range(3))
    assert short.rejection is None
    assert not any(d.fallback for d in short.differentials)
    assert middle.rejection is not None
    assert middle.rejection.measured == pytest.approx(1 / 3)
    assert long.rejection is None
    assert [d.frame for d in long.differentials if d.fallback] == [2]


def test_a_call_that_failed_is_made_once_more_after_all_others(
    fake_engine: FakeEngine, work_root: Path
) -> None:
    calm = written(caption(fake_engine, LENGTHS, "calm"))
    fake_engine.settings(first_status=[0, 0, 503, 0, 503, 503])
    shaken = caption(fake_engine, LENGTHS, "shaken", in_flight=1, retries=0)
    assert written(shaken) == calm
    calls = fake_engine.calls()
    assert len(calls) == sum(LENGTHS) + len(LENGTHS) + 3
    assert [number for number, call in enumerate(calls) if not call["answered"]] == [2, 4, 5]
    # The longest clips came first: those of 12, 9 and 7 frames had 2, 1 and 0 answers, the rest at the end.
    summaries = [number for number, call in enumerate(calls) if "Summarize" in call["prompt"]]
    assert len(calls) - 1 - summaries[-4] == (13 - 2) + (10 - 1) + 8


def test_what_was_refused_is_asked_again_by_the_next_run(fake_engine: FakeEngine, work_root: Path) -> None:
    """A run that ended between a refusal and its commit; meanwhile the engine was set up anew."""
    fake_engine.settings(bad_prompt=SIXTH)
    assert caption(fake_engine, [6, 2], "out")["clip-000"].rejection
    fake_engine.settings()
    assert not caption(fake_engine, [6, 2], "out")["clip-000"].rejection


def test_what_a_conversation_raises_comes_out(fake_engine: FakeEngine, work_root: Path) -> None:
    def broken() -> Conversation:
        raise RuntimeError("a bug")

    async def run() -> None:
        async with ChatClient(fake_engine.endpoint()) as client:
            with open_journal("out") as journal:
                await converse(ListedJobs(("x", 1, broken)), {CAPTIONER: client}, journal, lambda *_: None)

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(run())
    assert caught.group_contains(RuntimeError, match="a bug")


def test_conversations_are_opened_when_their_turn_comes(fake_engine: FakeEngine, work_root: Path) -> None:
    open_now, most = 0, 0

    class Counted(BriefConversation):
        def next(self) -> Call | None:
            nonlocal open_now
            call = super().next()
            open_now -= call is None
            return call

    def opened() -> Conversation:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        return Counted("x", frames(1), "sharecaptioner", 8)

    async def run() -> None:
        async with ChatClient(fake_engine.endpoint(max_in_flight=4)) as client:
            with open_journal("out") as journal:
                jobs = [(f"{n}", 1, opened) for n in range(50)]
                await converse(ListedJobs(*jobs), {CAPTIONER: client}, journal, lambda *_: None)

    asyncio.run(run())
    assert most <= 4


def test_a_clip_over_its_time_goes_no_further_and_waiting_does_not_count(
    fake_engine: FakeEngine, work_root: Path
) -> None:
    """One call after another, 0.3 s each: six clips of two calls, which wait longer than they may take."""
    fake_engine.settings(latency_s=0.3)
    ended: list[Finished] = []
    chains = caption(fake_engine, [1, 1, 1, 9, 1, 1, 1], in_flight=1, limit_s=1.8, on_done=ended.append)
    (overdue,) = [finished for finished in ended if finished.overdue_s is not None]
    assert overdue.number == 3
    assert overdue.overdue_s == pytest.approx(1.8, abs=0.5)
    assert len(chains["clip-003"].differentials) < 9
    assert all(chain.summary is not None for name, chain in chains.items() if name != "clip-003")


def test_a_spent_budget_ends_the_run_and_a_larger_one_goes_on(
    fake_engine: FakeEngine, work_root: Path
) -> None:
    calm = written(caption(fake_engine, LENGTHS, "calm"))
    fake_engine.settings(latency_s=0.02)
    ended: list[Finished] = []

    def limited(max_tokens: int) -> dict[str, Chain]:
        budget = Budget({"captioner": fake_engine.spec()}, None, max_tokens)
        return caption(fake_engine, LENGTHS, in_flight=4, budget=budget, on_done=ended.append)

    for calls in (20, 40):
        with pytest.raises(UserError, match=r"the budget is spent: \d+ tokens"):
            limited(calls * 12)  # tokens of a call
        seen = fake_engine.calls()
        assert calls <= len(seen) < calls + 4
        assert all(call["answered"] for call in seen)  # those under way were waited for
    assert written(limited(10**6)) == calm
    assert len(fake_engine.calls()) == sum(LENGTHS) + len(LENGTHS)
    assert sum(finished.spent.tokens for finished in ended[-len(LENGTHS) :]) == 12 * len(fake_engine.calls())


def test_an_engine_that_does_not_tell_tokens_is_no_good_for_a_budget(
    fake_engine: FakeEngine, work_root: Path
) -> None:
    fake_engine.settings(tells_usage=False)
    assert caption(fake_engine, [1], "free")["clip-000"].summary
    with pytest.raises(UserError, match="does not tell how many tokens"):
        caption(fake_engine, [1], budget=Budget({"captioner": fake_engine.spec()}, None, 100))


KILLED = """
import sys
from tests.captioning.talks import LENGTHS, caption
from tests.engines import FakeEngine
caption(FakeEngine(sys.argv[1]), LENGTHS, "killed", in_flight=6)
"""


@pytest.mark.timeout(300)
def test_a_kill_costs_the_calls_in_flight_and_nothing_else(fake_engine: FakeEngine, work_root: Path) -> None:
    calm = caption(fake_engine, LENGTHS, "calm")
    fake_engine.settings(latency_s=0.02, jitter_s=0.02)
    kills, rng = 3, random.Random(4)
    for _ in range(kills):
        before = len(fake_engine.calls())
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, fake_engine.base_url], cwd=Path(__file__).parents[2]
        )
        wanted = before + rng.randint(3, 25)
        while len(fake_engine.calls()) < wanted and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    resumed = caption(fake_engine, LENGTHS, "killed", in_flight=6)
    assert written(resumed) == written(calm)
    asked = Counter((call["prompt"], *call["images"]) for call in fake_engine.calls())
    distinct = Counter((call["prompt"], *call["images"]) for call in _calls_of_a_run(fake_engine))
    repeated = sum((asked - distinct).values())
    assert not distinct - asked
    assert repeated <= 6 * kills
    assert sum(asked.values()) - repeated == sum(LENGTHS) + len(LENGTHS)


def _calls_of_a_run(fake: FakeEngine) -> list[dict[str, Any]]:
    """Return the calls of an undisturbed run: equal clips make equal calls, which are counted."""
    fake.settings()
    caption(fake, LENGTHS, "again")
    return fake.calls()
