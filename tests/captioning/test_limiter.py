from __future__ import annotations

import asyncio
import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.captioning.limiter import AdaptiveLimit, PrioritySlots


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def answer(limit: AdaptiveLimit, seconds: float, windows: int) -> None:
    """Let so many windows of answers come while the limit is in full use."""
    for _ in range(windows):
        for _ in range(max(10, limit.limit)):
            limit.answered(seconds, limit.limit)


def test_it_begins_at_the_most_and_stays_there_while_all_is_well() -> None:
    limit = AdaptiveLimit(64)
    assert limit.limit == 64
    answer(limit, 1.0, 5)
    assert limit.limit == 64


def test_calls_that_are_pushed_back_together_cut_it_once() -> None:
    clock = Clock()
    limit = AdaptiveLimit(64, clock)
    clock.now += 1
    for _ in range(30):
        limit.pushed_back(began_s=100.5)
    assert limit.limit == 48
    clock.now += 1
    limit.pushed_back(began_s=101.5)
    assert limit.limit == 36


def test_it_never_falls_below_one_and_comes_back() -> None:
    clock = Clock()
    limit = AdaptiveLimit(64, clock)
    for _ in range(100):
        limit.pushed_back(clock.now)
        clock.now += 1
    assert limit.limit == 1
    answer(limit, 1.0, 20)
    assert limit.limit == 64


def test_rising_latency_shrinks_it_and_falling_latency_lets_it_grow() -> None:
    limit = AdaptiveLimit(64)
    answer(limit, 1.0, 5)
    answer(limit, 6.0, 2)
    low = limit.limit
    assert low < 40
    answer(limit, 1.0, 10)
    assert limit.limit == 64


def test_what_is_within_chance_changes_nothing() -> None:
    limit = AdaptiveLimit(64)
    answer(limit, 1.0, 3)
    answer(limit, 1.9, 3)
    assert limit.limit == 64


def test_an_endpoint_that_stays_slow_is_taken_as_it_is() -> None:
    limit = AdaptiveLimit(64)
    answer(limit, 1.0, 5)
    answer(limit, 5.0, 60)
    assert limit.limit == 64


def test_answers_while_little_is_in_use_say_nothing() -> None:
    limit = AdaptiveLimit(64)
    answer(limit, 1.0, 5)
    for _ in range(1000):
        limit.answered(50.0, in_flight=5)
    assert limit.limit == 64


def test_a_pause_holds_for_all_and_the_longest_counts() -> None:
    clock = Clock()
    limit = AdaptiveLimit(8, clock)
    assert limit.pause_s == 0
    limit.pushed_back(clock.now, retry_after_s=5.0)
    limit.pushed_back(clock.now, retry_after_s=2.0)
    assert limit.pause_s == 5.0
    clock.now += 4.5
    assert limit.pause_s == 0.5
    clock.now += 1
    assert limit.pause_s == 0


@pytest.mark.parametrize("takes", [4, 16, 40])
def test_it_settles_at_what_an_endpoint_takes(takes: int) -> None:
    """An endpoint that answers ``takes`` calls at a time, each in about a second, and no more."""
    clock, rng = Clock(), random.Random(takes)
    limit = AdaptiveLimit(64, clock)
    under_way: list[tuple[float, float]] = []  # when each ends, and when it began
    work = answered = pushed_back = 0.0
    while clock.now < 400:
        while len(under_way) < limit.limit:
            if len(under_way) < takes:
                heapq.heappush(under_way, (clock.now + rng.uniform(0.7, 1.3), clock.now))
            else:
                limit.pushed_back(clock.now)
                pushed_back += 1
                clock.now += 0.01
        ended, began = heapq.heappop(under_way)
        clock.now = max(clock.now, ended)
        limit.answered(ended - began, len(under_way) + 1)
        work, answered = work + ended - began, answered + 1
    assert work / 300 > 0.75 * takes  # the slots are in use
    assert pushed_back < 0.2 * answered


def test_slots_are_given_by_priority_and_in_order() -> None:
    async def run() -> list[str]:
        slots, order = PrioritySlots(AdaptiveLimit(1)), []

        async def hold(name: str, priority: int) -> None:
            async with slots.take(priority):
                order.append(name)
                await asyncio.sleep(0)

        names = [("first", 0), ("low", 5), ("high", -9), ("middle", 1), ("middle too", 1)]
        await asyncio.gather(*(hold(*name) for name in names))
        assert slots.taken == 0
        return order

    assert asyncio.run(run()) == ["first", "high", "middle", "middle too", "low"]


def test_a_limit_that_shrank_lets_nobody_in_until_there_is_room() -> None:
    async def run() -> int:
        limit = AdaptiveLimit(8)
        slots = PrioritySlots(limit)
        most = 0

        async def hold(number: int) -> None:
            nonlocal most
            async with slots.take(number):
                if number == 0:
                    limit.pushed_back(float("inf"))
                await asyncio.sleep(0.001 * number)
                if number >= 8:  # those of the first eight were in before
                    most = max(most, slots.taken)

        await asyncio.gather(*(hold(number) for number in range(40)))
        assert slots.taken == 0
        return most

    assert asyncio.run(run()) == 6


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 4))
def test_waiters_that_give_up_take_no_slot_with_them(gives_up: list[bool], most: int) -> None:
    async def run() -> None:
        slots = PrioritySlots(AdaptiveLimit(most))

        async def hold() -> None:
            async with slots.take(0):
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(hold()) for _ in gives_up]
        for task, cancel in zip(tasks, gives_up, strict=True):
            await asyncio.sleep(0)
            if cancel:
                task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert slots.taken == 0

    asyncio.run(run())
