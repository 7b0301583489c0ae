from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from share4video.captioning.engine_line import SILENT_CALLS
from share4video.captioning.scheduler import Finished
from share4video.errors import UserError
from tests.captioning.talks import LENGTHS, SIXTH, caption, written
from tests.engines import FakeEngine


@pytest.mark.parametrize("status", [500, 404, 401])
def test_an_engine_that_is_gone_stops_the_run(fake_engine: FakeEngine, work_root: Path, status: int) -> None:
    fake_engine.settings(status=status)
    with pytest.raises(UserError):
        caption(fake_engine, LENGTHS, retries=1)
    assert len(fake_engine.calls()) < 40
    fake_engine.settings()
    assert not any(chain.rejection for chain in caption(fake_engine, LENGTHS[:3]).values())


def test_even_a_single_clip_is_not_rejected_for_a_silent_engine(
    fake_engine: FakeEngine, work_root: Path
) -> None:
    fake_engine.settings(status=503)
    with pytest.raises(UserError, match="does not answer"):
        caption(fake_engine, [1], retries=0)


@pytest.mark.parametrize(
    ("settings", "answered", "timeout_s"),
    [
        ({"first_status": [0, 0, 0] + [500] * 99}, 3, 10),
        ({"faults": {"http_500": 1.0}}, 0, 10),
        ({"faults": {"garbage": 1.0}}, 0, 10),
        ({"faults": {"hang": 1.0}}, 0, 0.5),
    ],
)
def test_an_engine_that_dies_before_the_end_costs_nothing(
    fake_engine: FakeEngine, work_root: Path, settings: dict[str, Any], answered: int, timeout_s: float
) -> None:
    fake_engine.settings(**settings)
    with pytest.raises(UserError, match="the engine does not answer"):
        caption(fake_engine, [1, 1], in_flight=1, retries=0, request_timeout_s=timeout_s)
    fake_engine.settings()
    chains = caption(fake_engine, [1, 1], in_flight=1)
    assert not any(chain.rejection for chain in chains.values())
    assert len(fake_engine.calls()) == 4 - answered


def test_an_engine_that_no_longer_answers_what_it_did_stops_the_run(
    fake_engine: FakeEngine, work_root: Path
) -> None:
    """As one whose memory has become too small for real pictures; a plain request it would still answer."""

    def spoil(_: Finished) -> None:
        fake_engine.settings(bad_prompt="describ", bad_status=500)

    with pytest.raises(UserError, match="does not answer"):
        caption(fake_engine, [3, 1, 1], in_flight=1, retries=0, on_done=spoil)


@pytest.mark.parametrize("poisoned", [1, 6])
@pytest.mark.parametrize("status", [500, 400])
def test_clips_that_a_healthy_engine_cannot_take_are_rejected(
    fake_engine: FakeEngine, work_root: Path, poisoned: int, status: int
) -> None:
    fake_engine.settings(bad_prompt=SIXTH, bad_status=status)
    chains = caption(fake_engine, [6] * poisoned + [2] * 4, retries=0)
    rejected = [chain.rejection for chain in chains.values() if chain.rejection]
    assert len(rejected) == poisoned
    assert {rejection.sentence for rejection in rejected} == {f"no summary caption: HTTP {status}"}


@pytest.mark.parametrize("status", [500, 400])
def test_a_single_clip_that_a_healthy_engine_cannot_take_is_rejected(
    fake_engine: FakeEngine, work_root: Path, status: int
) -> None:
    fake_engine.settings(bad_prompt="describe it in detail", bad_status=status)
    (chain,) = caption(fake_engine, [1], retries=0).values()
    assert chain.rejection is not None
    assert chain.rejection.sentence == f"no caption for key frame 1: HTTP {status}"


@pytest.mark.parametrize("status", [500, 400])
def test_an_engine_that_can_take_no_clip_at_all_stops_the_run(
    fake_engine: FakeEngine, work_root: Path, status: int
) -> None:
    """It answers a plain request, but none of those there are."""
    fake_engine.settings(bad_prompt="describe it in detail", bad_status=status)
    with pytest.raises(UserError, match=f"HTTP {status}"):
        caption(fake_engine, [1] * 4, retries=0)


def test_an_engine_that_refuses_everything_is_found_out_early(
    fake_engine: FakeEngine, work_root: Path
) -> None:
    fake_engine.settings(status=400)
    with pytest.raises(UserError, match="refuses every request: HTTP 400"):
        caption(fake_engine, [1] * 200, in_flight=2)
    assert len(fake_engine.calls()) < 20
    fake_engine.settings()
    assert not any(chain.rejection for chain in caption(fake_engine, [1] * 9).values())


def test_an_endpoint_that_takes_few_at_a_time_gets_few(fake_engine: FakeEngine, work_root: Path) -> None:
    calm = written(caption(fake_engine, LENGTHS, "calm"))
    fake_engine.settings(takes=3, latency_s=0.05)
    assert written(caption(fake_engine, LENGTHS, "crowded", in_flight=16, retries=2)) == calm
    pushed_back = [call for call in fake_engine.calls() if not call["answered"]]
    assert len(pushed_back) < sum(LENGTHS)


def test_a_time_the_endpoint_asks_for_is_given_by_all(fake_engine: FakeEngine, work_root: Path) -> None:
    fake_engine.settings(first_status=[0] * 10 + [429], retry_after="1.5", latency_s=0.1)
    caption(fake_engine, LENGTHS, in_flight=4)
    began = [call["at"] for call in fake_engine.calls()]
    gaps = [after - before for before, after in pairwise(began)]
    assert max(gaps) > 1.2
    assert gaps.index(max(gaps)) < 10 + 8  # those on their way then, and their chains' next


def test_a_call_and_its_retries_end_in_time(fake_engine: FakeEngine, work_root: Path) -> None:
    fake_engine.settings(bad_prompt=SIXTH, bad_status=500)
    times = {"retries": 20, "call_timeout_s": 0.6, "backoff_s": 0.05}
    chains = caption(fake_engine, [6, 2, 2], **times)
    assert [name for name, chain in chains.items() if chain.rejection] == ["clip-000"]
    assert len([call for call in fake_engine.calls() if not call["answered"]]) < 60  # of 84


def test_a_silent_engine_does_not_make_clips_too_slow(fake_engine: FakeEngine, work_root: Path) -> None:
    fake_engine.settings(faults={"hang": 1.0})
    with pytest.raises(UserError, match="does not answer"):
        caption(fake_engine, [1, 1], limit_s=0.3, retries=0, request_timeout_s=1.0)


def test_an_engine_that_dies_among_many_clips_is_noticed_within_few_calls(
    fake_engine: FakeEngine, work_root: Path
) -> None:
    in_flight, retries, answered = 8, 2, 60
    fake_engine.settings(first_status=[0] * answered + [500] * 5000)
    with pytest.raises(UserError, match="the engine does not answer: HTTP 500"):
        caption(fake_engine, [1] * 1000, in_flight=in_flight, retries=retries)
    failed = len(fake_engine.calls()) - answered
    assert failed <= (in_flight + SILENT_CALLS + 1) * (retries + 1)
