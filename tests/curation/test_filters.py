"""Each rule at its bound, and which rule speaks first."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.config import ProbeConfig
from share4video.curation.filters import RULES, Rejection, exact_duplicate, judge
from share4video.media.limits import MediaError
from share4video.media.probe import ClipInfo

CONFIG = ProbeConfig()
GOOD = ClipInfo(
    start_s=0.0,
    end_s=30.0,
    duration_s=30.0,
    fps=25.0,
    width=640,
    height=360,
    codec="h264",
    content_hash="0" * 64,
    file_bytes=1_000_000,
    container="mov",
    pixel_format="yuv420p",
    origin_s=0.0,
    has_audio=False,
    frames=750,
    black_share=0.0,
    single_colour_share=0.0,
    frozen_share=0.0,
    motion=0.05,
)


def clip(**changes: Any) -> ClipInfo:
    return dataclasses.replace(GOOD, **changes)


def test_an_ordinary_clip_is_kept() -> None:
    assert judge(GOOD, CONFIG) is None


@pytest.mark.parametrize(
    ("at_the_bound", "beyond", "reason", "sentence"),
    [
        (
            {"duration_s": 120.0},
            {"duration_s": 120.5},
            "too_long",
            "120.50 s is longer than the 120 s allowed",
        ),
        ({"duration_s": 10.0}, {"duration_s": 9.5}, "too_short", "9.50 s is shorter than the 10 s required"),
        ({"height": 240}, {"height": 238}, "too_small", "238 lines are fewer than the 240 required"),
        (
            {"width": 1080},
            {"width": 1090},
            "too_wide",
            "sides of 1090 to 360 are over the ratio of 3 allowed",
        ),
        ({"fps": 5.0}, {"fps": 4.9}, "low_fps", "4.90 frames per second are fewer than the 5 required"),
        (
            {"black_share": 0.8},
            {"black_share": 0.875},
            "black",
            "88% of the pictures looked at are black, over the 80% allowed",
        ),
        (
            {"single_colour_share": 0.8},
            {"single_colour_share": 1.0},
            "single_colour",
            "100% of the pictures looked at are of one colour, over the 80% allowed",
        ),
        (
            {"frozen_share": 0.99},
            {"frozen_share": 0.995},
            "frozen",
            "99.5% of the pictures looked at do not differ from the one before, over the 99.0% allowed",
        ),
        (
            {"width": 4096, "height": 2304},
            {"width": 4096, "height": 2305},
            "too_large",
            "pictures of 4096 x 2305 are over the 9437184 pixels allowed",
        ),
        (
            {"file_bytes": 4 << 30},
            {"file_bytes": (4 << 30) + 1},
            "too_large",
            "the file of 4294967297 bytes is over the 4294967296 allowed",
        ),
    ],
)
def test_each_rule_at_its_bound(
    at_the_bound: dict[str, Any], beyond: dict[str, Any], reason: str, sentence: str
) -> None:
    assert judge(clip(**at_the_bound), CONFIG) is None
    rejection = judge(clip(**beyond), CONFIG)
    assert rejection is not None
    assert (rejection.reason, rejection.sentence) == (reason, sentence)
    assert rejection.measured is not None and rejection.bound is not None


def test_portrait_counts_as_wide_as_landscape() -> None:
    rejection = judge(clip(width=300, height=1000), CONFIG)
    assert rejection is not None and rejection.reason == "too_wide"
    assert rejection.measured == pytest.approx(3.333, abs=0.001)


@pytest.mark.parametrize(
    ("bound", "at_the_bound", "beyond", "reason", "sentence"),
    [
        (
            {"min_motion": 0.01},
            {"motion": 0.01},
            {"motion": 0.005},
            "little_motion",
            "pictures differ by 0.0050 of full brightness, less than the 0.01 required",
        ),
        (
            {"max_motion": 0.3},
            {"motion": 0.3},
            {"motion": 0.4},
            "much_motion",
            "pictures differ by 0.4000 of full brightness, over the 0.3 allowed",
        ),
        (
            {"min_aesthetic": 4.5, "aesthetic": {"head": "head.safetensors"}},
            {"aesthetic": 4.5},
            {"aesthetic": 4.25},
            "low_aesthetic",
            "an aesthetic score of 4.25 is under the 4.5 required",
        ),
    ],
)
def test_rules_that_are_off_by_default(
    bound: dict[str, Any],
    at_the_bound: dict[str, Any],
    beyond: dict[str, Any],
    reason: str,
    sentence: str,
) -> None:
    config = ProbeConfig.model_validate(bound)
    assert judge(clip(**at_the_bound), config) is None
    rejection = judge(clip(**beyond), config)
    assert rejection is not None
    assert (rejection.reason, rejection.sentence) == (reason, sentence)
    assert judge(clip(**beyond), CONFIG) is None


def test_a_rule_can_be_switched_off() -> None:
    still = clip(black_share=1.0, single_colour_share=1.0, frozen_share=1.0)
    off = {"max_black_share": None, "max_single_colour_share": None, "max_frozen_share": None}
    assert judge(still, ProbeConfig.model_validate(off)) is None


def test_a_scene_is_named_by_its_span() -> None:
    rejection = judge(clip(start_s=12.0, end_s=15.2, duration_s=3.2, scene=1), CONFIG)
    assert rejection is not None
    assert (
        rejection.sentence == "3.20 s is shorter than the 10 s required, in the scene from 12.00 to 15.20 s"
    )
    assert judge(clip(scene=0), CONFIG) is None


def test_what_is_not_known_is_not_held_against_a_clip() -> None:
    unknown = dict.fromkeys(("black_share", "single_colour_share", "frozen_share", "motion"))
    assert judge(clip(**unknown, frames=None), ProbeConfig(min_motion=0.1)) is None


def test_the_first_rule_speaks() -> None:
    rejection = judge(clip(duration_s=500.0, height=10, fps=0.0, black_share=1.0), CONFIG)
    assert rejection is not None and rejection.reason == "too_long"


def test_bounds_come_from_the_configuration() -> None:
    assert judge(clip(duration_s=3.0), ProbeConfig(min_duration_s=2.0)) is None


@given(
    duration_s=st.floats(0, 1000),
    fps=st.floats(0, 240),
    width=st.integers(1, 8000),
    height=st.integers(1, 8000),
    black_share=st.none() | st.floats(0, 1),
)
def test_a_rejection_names_a_rule_that_is_broken(**facts: Any) -> None:
    subject = clip(**facts)
    broken = [found for rule in RULES if (found := rule.check(subject, CONFIG))]
    assert judge(subject, CONFIG) == (broken[0] if broken else None)
    for rejection in broken:
        assert not rejection.sentence.endswith(".")


def test_other_rejections() -> None:
    error = MediaError("truncated", "the file ends early", measured=1.0, bound=2.0)
    assert Rejection.of(error) == Rejection("truncated", "the file ends early", 1.0, 2.0)
    assert exact_duplicate("a/b.mp4").sentence == "the same content as a/b.mp4"
