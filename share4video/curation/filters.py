"""Which videos become clips: rules as data, each with what it measures, its bound and its sentence."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

from share4video.config import ProbeConfig
from share4video.media.limits import MediaError
from share4video.media.probe import ClipInfo


@dataclass(frozen=True)
class Rejection:
    """Why a row is not kept.

    Attributes:
        reason: code in snake_case.
        sentence: for a person, without a full stop.
        measured: the offending number, where there is one.
        bound: what it was held against.
    """

    reason: str
    sentence: str
    measured: float | None = None
    bound: float | None = None

    @classmethod
    def of(cls, error: MediaError) -> Rejection:
        """Return the rejection of a file that could not be read."""
        return cls(error.reason, error.sentence, error.measured, error.bound)


@dataclass(frozen=True)
class Rule:
    """One bound on a clip.

    Attributes:
        reason: the code of its rejections.
        measure: what is held against the bound; None where it is not known, which the rule lets pass.
        bound: the bound, from the configuration; None where there is none.
        breaks: whether a value is out of bounds: ``operator.gt`` for an upper bound, ``lt`` for a lower one.
        sentence: format string over ``measured``, ``bound`` and ``clip``.
    """

    reason: str
    measure: Callable[[ClipInfo], float | None]
    bound: Callable[[ProbeConfig], float | None]
    breaks: Callable[[float, float], bool]
    sentence: str

    def check(self, clip: ClipInfo, config: ProbeConfig) -> Rejection | None:
        """Return the rejection of ``clip`` by this rule, or None."""
        measured, bound = self.measure(clip), self.bound(config)
        if measured is None or bound is None or not self.breaks(measured, bound):
            return None
        sentence = self.sentence.format(measured=measured, bound=bound, clip=clip)
        return Rejection(self.reason, sentence, float(measured), float(bound))


# In order: a clip that breaks several rules is rejected by the first.
RULES = (
    Rule(
        "too_large",
        lambda clip: clip.file_bytes,
        lambda config: config.max_file_bytes,
        operator.gt,
        "the file of {measured} bytes is over the {bound} allowed",
    ),
    Rule(
        "too_large",
        lambda clip: clip.width * clip.height,
        lambda config: config.max_pixels,
        operator.gt,
        "pictures of {clip.width} x {clip.height} are over the {bound} pixels allowed",
    ),
    Rule(
        "too_long",
        lambda clip: clip.duration_s,
        lambda config: config.max_duration_s,
        operator.gt,
        "{measured:.2f} s is longer than the {bound:g} s allowed",
    ),
    Rule(
        "too_short",
        lambda clip: clip.duration_s,
        lambda config: config.min_duration_s,
        operator.lt,
        "{measured:.2f} s is shorter than the {bound:g} s required",
    ),
    Rule(
        "too_small",
        lambda clip: clip.height,
        lambda config: config.min_height,
        operator.lt,
        "{measured} lines are fewer than the {bound} required",
    ),
    Rule(
        "too_wide",
        lambda clip: max(clip.width, clip.height) / min(clip.width, clip.height),
        lambda config: config.max_aspect,
        operator.gt,
        "sides of {clip.width} to {clip.height} are over the ratio of {bound:g} allowed",
    ),
    Rule(
        "low_fps",
        lambda clip: clip.fps,
        lambda config: config.min_fps,
        operator.lt,
        "{measured:.2f} frames per second are fewer than the {bound:g} required",
    ),
    Rule(
        "black",
        lambda clip: clip.black_share,
        lambda config: config.max_black_share,
        operator.gt,
        "{measured:.0%} of the pictures looked at are black, over the {bound:.0%} allowed",
    ),
    Rule(
        "single_colour",
        lambda clip: clip.single_colour_share,
        lambda config: config.max_single_colour_share,
        operator.gt,
        "{measured:.0%} of the pictures looked at are of one colour, over the {bound:.0%} allowed",
    ),
    Rule(
        "frozen",
        lambda clip: clip.frozen_share,
        lambda config: config.max_frozen_share,
        operator.gt,
        "{measured:.1%} of the pictures looked at do not differ from the one before,"
        " over the {bound:.1%} allowed",
    ),
    Rule(
        "little_motion",
        lambda clip: clip.motion,
        lambda config: config.min_motion,
        operator.lt,
        "pictures differ by {measured:.4f} of full brightness, less than the {bound:g} required",
    ),
    Rule(
        "much_motion",
        lambda clip: clip.motion,
        lambda config: config.max_motion,
        operator.gt,
        "pictures differ by {measured:.4f} of full brightness, over the {bound:g} allowed",
    ),
    Rule(
        "low_aesthetic",
        lambda clip: clip.aesthetic,
        lambda config: config.min_aesthetic,
        operator.lt,
        "an aesthetic score of {measured:.2f} is under the {bound:g} required",
    ),
)


def judge(clip: ClipInfo, config: ProbeConfig) -> Rejection | None:
    """Return why ``clip`` is not kept, by the first rule it breaks, or None where it is kept.

    The sentence names the span of a clip that is a scene.
    """
    found = (rule.check(clip, config) for rule in RULES)
    rejection = next((rejection for rejection in found if rejection is not None), None)
    return rejection and in_scene(rejection, clip)


def in_scene(rejection: Rejection, clip: ClipInfo) -> Rejection:
    """Return the rejection with the span in its sentence where ``clip`` is one of several of its file."""
    if clip.scene is None:
        return rejection
    span = scene_words(clip.start_s, clip.end_s)
    return replace(rejection, sentence=f"{rejection.sentence}, {span}")


def scene_words(start_s: float, end_s: float) -> str:
    """Say which scene of its file a rejected clip is; one file may give many."""
    return f"in the scene from {start_s:.2f} to {end_s:.2f} s"


def exact_duplicate(first_uri: str) -> Rejection:
    """Return the rejection of a file with the same bytes as ``first_uri``, which comes before it."""
    return Rejection("exact_duplicate", f"the same content as {first_uri}")
