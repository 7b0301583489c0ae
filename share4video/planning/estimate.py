"""From the clips of a pilot and an engine's rates to what all of a collection will take.

A pilot is a part of the sources taken by the hash of their names, so what holds of its rows holds of all of
them on average; the interval says how far other parts of that size would differ. One thing it cannot show:
duplicates are found among the rows at hand, so the share that is kept of all rows is at most the pilot's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from share4video.captioning.conversations import CaptionPlan
from share4video.captioning.derived import DerivedPlan
from share4video.captioning.differential import Caption, Chain
from share4video.config import Config
from share4video.evaluation.bootstrap import Floats, Interval, sum_interval
from share4video.planning.rates import EngineRates, Measured

_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class PilotClip:
    """A clip of the pilot.

    Attributes:
        timestamps_s: of its key frames; none where it was not kept.
        cuts: for each of them whether a scene begins with it.
    """

    duration_s: float
    timestamps_s: tuple[float, ...] = ()
    cuts: tuple[bool, ...] = ()


class Prices(Config):
    """What an engine's hardware costs; None is not known, and then not counted.

    Tokens are priced by their engine (`EngineSpec.prompt_price`, ``completion_price``); ``gpu_hour`` is of
    one of ``gpus`` GPUs that the endpoint occupies.
    """

    gpu_hour: float | None = None
    gpus: float = 0.0


class Plan(Config):
    """What captioning a collection will take.

    Attributes:
        rows: of the sources.
        pilot_rows: how many of them were looked at.
        clips: kept clips that are captioned.
        calls: by kind; those made again because a caption failed its checks are counted in ``again``.
        hours: of the engines at the concurrency they were measured at, or of the longest chain where that
            takes longer.
        gpu_hours: None where no GPU was named.
        cost: None where no price was.
    """

    rows: int
    pilot_rows: int
    clips: Interval
    hours_of_video: Interval
    key_frames: Interval
    calls: dict[str, float]
    again: float
    total_calls: Interval
    prompt_tokens: Interval
    tokens: Interval
    hours: Interval
    gpu_hours: float | None
    cost: float | None
    measured: Measured
    prices: Prices


def estimate(
    rows: int,
    pilot_rows: int,
    pilot: Sequence[PilotClip],
    captions: CaptionPlan,
    derived: DerivedPlan,
    measured: Measured,
    prices: Prices,
) -> Plan:
    """Multiply what a pilot showed.

    Args:
        rows: how many rows the sources have.
        pilot_rows: how many of them the pilot looked at.
        pilot: the clips that came of these, kept or not.
        captions: how clips are captioned.
        derived: what is made of their captions.

    Raises:
        ValueError: the pilot is empty.
        UserError: the rates lack a role the plan calls for.
    """
    if not pilot:
        raise ValueError("a plan needs a pilot")
    factor = max(1.0, rows / pilot_rows)
    answered = measured.captioner.role("difference").tokens if captions.rules.differential else 0.0
    kinds = [_calls(clip, captions, derived, answered) for clip in pilot]
    names = sorted({kind for calls in kinds for kind in calls})
    counts = np.array([[calls[name] for name in names] for calls in kinds], dtype=np.float64)
    counts = counts.reshape(len(pilot), len(names))
    clips = np.array([bool(clip.timestamps_s) for clip in pilot], dtype=np.float64)
    video_s = np.array([clip.duration_s if clip.timestamps_s else 0.0 for clip in pilot])
    frames = np.array([len(clip.timestamps_s) for clip in pilot], dtype=np.float64)

    def total(column: Floats) -> Interval:
        found = sum_interval(column[:, None] * factor, lambda sums: sums[:, 0])
        return Interval(estimate=round(found.estimate, 6), low=round(found.low, 6), high=round(found.high, 6))

    engines = [measured.engine_of(name) for name in names]
    roles = [engine.role(name) for engine, name in zip(engines, names, strict=True)]
    made = counts * np.array([1 + engine.again for engine in engines])
    prompt = total(made @ np.array([role.prompt_tokens for role in roles]))
    tokens = total(made @ np.array([role.tokens for role in roles]))
    hours = total(made @ np.array([_hours(e, name) for e, name in zip(engines, names, strict=True)]))
    longest = _longest_hours(kinds, measured)
    hours = Interval(
        estimate=max(hours.estimate, longest), low=max(hours.low, longest), high=max(hours.high, longest)
    )
    by_role = made.sum(axis=0) * factor
    spent = sum(
        calls * (role.prompt_tokens * engine.prompt_price + role.tokens * engine.completion_price) / 1e6
        for calls, role, engine in zip(by_role, roles, engines, strict=True)
    )
    gpu_hours = hours.estimate * prices.gpus if prices.gpus else None
    rented = None if gpu_hours is None or prices.gpu_hour is None else gpu_hours * prices.gpu_hour
    priced = any(engine.prompt_price or engine.completion_price for engine in engines)
    return Plan(
        rows=rows,
        pilot_rows=pilot_rows,
        clips=total(clips),
        hours_of_video=total(video_s / 3600),
        key_frames=total(frames),
        calls={name: round(float(n), 3) for name, n in zip(names, counts.sum(axis=0) * factor, strict=True)},
        again=round(float((made - counts).sum() * factor), 3),
        total_calls=total(made.sum(axis=1)),
        prompt_tokens=prompt,
        tokens=tokens,
        hours=hours,
        gpu_hours=gpu_hours,
        cost=None if rented is None and not priced else float(spent) + (rented or 0.0),
        measured=measured,
        prices=prices,
    )


def _calls(clip: PilotClip, captions: CaptionPlan, derived: DerivedPlan, answered: float) -> Counter[str]:
    """Count a clip's calls by letting its chain run on answers of the usual length."""
    calls = Counter({"brief": 1})
    if clip.timestamps_s:
        answer = Caption("word " * max(1, round(answered * _CHARACTERS_PER_TOKEN / 5)), round(answered))
        chain = Chain(clip.timestamps_s, captions.rules, cuts=clip.cuts)
        while (step := chain.next()) is not None:
            calls[step.kind] += 1
            chain.take(step, answer)
        calls.update(derived.roles)
    return calls


def _hours(engine: EngineRates, kind: str) -> float:
    """Return how long a call occupies the engine."""
    return engine.role(kind).seconds / engine.in_flight / 3600


def _longest_hours(kinds: Sequence[Mapping[str, int]], measured: Measured) -> float:
    """Return how long the longest chain takes alone: its calls wait for each other."""
    return max(
        sum(n * measured.engine_of(kind).role(kind).seconds for kind, n in calls.items()) / 3600
        for calls in kinds
    )
