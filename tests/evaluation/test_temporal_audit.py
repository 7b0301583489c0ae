"""The temporal audit: captioners that look, that do not, and that look at single frames only."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.captioning.client import ChatClient, Endpoint
from share4video.captioning.engine import resolve
from share4video.captioning.role_inputs import KeyFrame
from share4video.config import CaptionConfig
from share4video.curation.keyframes import jpeg_bytes
from share4video.evaluation.audit_captions import caption_orders, in_order
from share4video.evaluation.temporal_audit import (
    Finding,
    Played,
    Tally,
    audit_clip,
    orders,
    says_change,
    summarise,
)
from share4video.synthetic import language
from share4video.synthetic.render import render
from share4video.synthetic.world import State, sample_clip
from tests.engines import frames
from tests.evaluation.engine_host import Body, EngineHost, engine_host

SEEDS = range(8)
_MOST_FRAMES = 8


@pytest.fixture
def host() -> Iterator[EngineHost]:
    with engine_host() as running:
        yield running


def clip_frames(seed: int) -> tuple[list[KeyFrame], dict[bytes, State]]:
    """Return a clip's frames every two seconds, and what each picture shows."""
    clip = sample_clip(seed)
    shown, states = [], {}
    for number in range(1, min(_MOST_FRAMES, int(clip.duration_s) // 2) + 1):
        time_s = 2.0 * (number - 1)
        data = jpeg_bytes(render(clip, time_s, 64), max_side=64, quality=90)
        shown.append(KeyFrame(number, time_s, data))
        states[data] = clip.state_at(time_s)
    return shown, states


def pictures(body: Body) -> list[bytes]:
    content: Any = body["messages"][1]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return [base64.b64decode(url.partition(",")[2]) for url in urls]


def audit(
    host: EngineHost, answer: Callable[[Body, dict[bytes, State]], str], *, seeds: Sequence[int] = SEEDS
) -> dict[str, Tally]:
    """Audit an engine on a few clips."""
    findings: list[Finding] = []
    endpoint = Endpoint(f"{host.root}/v1", "tiny", resolve(host.spec(dialect="teacher", max_in_flight=8)))

    async def run(name: str, shown: list[KeyFrame]) -> dict[Any, Played]:
        async with ChatClient(endpoint) as client:
            return await caption_orders(name, shown, client, CaptionConfig())

    for seed in seeds:
        shown, states = clip_frames(seed)
        host.answer = lambda body, states=states: answer(body, states)
        findings += audit_clip(f"clip-{seed}", asyncio.run(run(f"clip-{seed}", shown)))
    return {str(test): result for test, result in summarise(findings).items()}


def test_an_oracle_violates_nothing(host: EngineHost) -> None:
    def see(body: Body, states: dict[bytes, State]) -> str:
        seen = [states[data] for data in pictures(body)]
        if len(seen) == 1:
            return language.first_caption(seen[0])
        return language.differential_caption(language.changes_between(*seen, 0.0))

    results = audit(host, see)
    assert {name: result.violated for name, result in results.items()} == dict.fromkeys(results, 0)
    assert results["reversed"].tested > 10
    assert results["frozen"].tested > 10
    assert all(result.tested > 0 for result in results.values()), results
    assert results["reversed"].silent == 0


def test_an_engine_that_ignores_the_frames_is_caught(host: EngineHost) -> None:
    results = audit(host, lambda *_: "The man walks to the left, and the camera zooms in.")
    for name in ("reversed", "shuffled", "frozen"):
        rate = results[name].rate
        assert rate is not None
        assert (rate.estimate, rate.low) == (1.0, 1.0)
    assert results["order"].tested == 0  # it tells nothing once only


def test_an_engine_that_recites_a_story_is_caught_by_the_order(host: EngineHost) -> None:
    story = ["The dog moves left.", "A cat appears.", "The door opens.", "Nothing changes."]

    def recite(body: Body, states: dict[bytes, State]) -> str:
        (text,) = [p["text"] for p in body["messages"][1]["content"] if "What happened" in p.get("text", "")][
            :1
        ] or [""]
        if not text:
            return "A room."
        number = int(text.split("frame ")[1].split(":")[0])
        return story[min(number, len(story)) - 1]

    results = audit(host, recite)
    assert results["order"].rate is not None
    assert results["order"].rate.estimate == 1.0
    assert results["order"].tested >= 3


def test_an_engine_that_sees_one_frame_at_a_time_is_caught(host: EngineHost) -> None:
    """It guesses from where a thing is, as in a photo: at the left it came from the right."""

    def guess(body: Body, states: dict[bytes, State]) -> str:
        (*_, last) = [states[data] for data in pictures(body)]
        if not last.bodies:
            return "The background is empty."
        body_seen = last.bodies[0]
        return f"The {body_seen.name} moves {'left' if body_seen.world_x < 0.5 else 'right'}."

    results = audit(host, guess)
    assert results["frozen"].rate is not None and results["frozen"].rate.estimate > 0.8
    assert results["reversed"].rate is not None and results["reversed"].rate.estimate > 0.5


def test_an_engine_that_refuses_has_nothing_to_test(host: EngineHost) -> None:
    results = audit(host, lambda *_: "I'm sorry, I can't assist with that.", seeds=[0])
    assert all(result.tested == 0 and result.rate is None for result in results.values())


def played(order: list[int], captions: list[str | None]) -> Played:
    return Played(order=tuple(order), captions=tuple(captions))


@pytest.mark.parametrize(
    ("backwards", "violated"),
    [
        ("The man walks to the right.", False),
        ("The man walks to the left.", True),
        ("He walks to the left.", True),
        ("The man in a hat walks to the left.", True),
        ("The dog walks to the left.", None),
        ("The man does not move to the left.", None),
        ("Nothing changes.", None),
        ("The man walks left, then the man walks right.", None),
    ],
)
def test_what_inverts(backwards: str, violated: bool | None) -> None:
    said = {
        "forward": played([0, 1], ["The man walks to the left."]),
        "reversed": played([1, 0], [backwards]),
    }
    (finding,) = audit_clip("clip", said)  # type: ignore[arg-type]
    assert (finding.test, finding.violated, finding.step) == ("reversed", violated, 1)
    assert finding.expected == "man, horizontal: right"


def test_a_step_back_over_several_frames_undoes_what_was_of_one_kind() -> None:
    forward = played([0, 1, 2, 3], ["The man walks left.", "Nothing changes.", "The man walks left."])
    findings = audit_clip(
        "clip", {"forward": forward, "shuffled": played([3, 0, 2, 1], ["The man walks left."] * 3)}
    )
    assert [(finding.violated, finding.step) for finding in findings] == [(True, 1)]
    mixed = played([0, 1, 2, 3], ["The man walks left.", "Nothing changes.", "The man moves upwards."])
    assert (
        audit_clip("clip", {"forward": mixed, "shuffled": played([3, 0, 2, 1], ["The man walks left."] * 3)})
        == []
    )
    unknown = played([0, 1, 2, 3], ["The man walks left.", None, "The man walks left."])
    assert (
        audit_clip(
            "clip", {"forward": unknown, "shuffled": played([3, 0, 2, 1], ["The man walks left."] * 3)}
        )
        == []
    )


def test_a_clip_without_change_has_nothing_to_test() -> None:
    still = played([0, 1], ["Nothing changes."])
    assert not says_change(still)
    assert audit_clip("clip", {"forward": still, "frozen": played([0, 0], ["The man walks left."])}) == []


@given(st.text(max_size=20), st.integers(1, 30))
def test_every_order_shows_the_frames_otherwise(name: str, count: int) -> None:
    found = orders(name, count)
    assert found == orders(name, count)
    assert len(set(found.values())) == len(found) == min(4, count + (count > 1))
    for playing, order in found.items():
        assert len(order) == count
        assert playing == "frozen" or sorted(order) == list(range(count))


def test_frames_keep_their_pictures_and_get_ascending_times() -> None:
    given_frames = [
        KeyFrame(n, t, f.image) for n, t, f in zip((1, 2, 3), (1.0, 2.0, 8.0), frames(3), strict=True)
    ]
    backwards = in_order(given_frames, (2, 1, 0))
    assert [(f.number, f.timestamp_s) for f in backwards] == [(1, 1.0), (2, 7.0), (3, 8.0)]
    assert [f.image for f in backwards] == [f.image for f in given_frames[::-1]]
    assert [f.timestamp_s for f in in_order(given_frames, (1, 2, 0))] == [1.0, 2.0, 8.0]
