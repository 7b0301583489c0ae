"""What a run came to, read from what it published, beside what was planned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.compute as pc

from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import read_table
from share4video.planning.estimate import Plan
from share4video.planning.usage import read_usage
from share4video.store import Store


@dataclass(frozen=True)
class Actual:
    """Sums over a caption output. ``hours`` are None where nobody kept them.

    Calls are those whose answers were published: a first try whose caption was asked for again is not in the
    tables, and neither is a clip that was rejected.
    """

    clips: int
    key_frames: int
    calls: int
    prompt_tokens: int
    tokens: int
    hours: float | None


def read_actual(store: Store, ref: StageRef) -> Actual:
    """Read a published output of the caption stage."""
    differentials = read_table(store, ref, "differentials")
    captions = read_table(store, ref, "captions")
    usage = read_usage(store, ref)
    both = (differentials, captions)
    return Actual(
        clips=len(pc.unique(captions["clip_id"])),
        key_frames=len(differentials),
        calls=sum(len(table) for table in both),
        prompt_tokens=sum(pc.sum(table["prompt_tokens"]).as_py() or 0 for table in both),
        tokens=sum(pc.sum(table["tokens"]).as_py() or 0 for table in both),
        hours=sum(one.seconds for one in usage) / 3600 if usage else None,
    )


def compare(plan: Plan, actual: Actual) -> Iterator[tuple[str, float, float, float, float | None]]:
    """Yield what was planned (estimate, low, high) and what came, by name; None where it is not known.

    Brief captions are planned but belong to curation, so they are taken off the plan's calls here.
    """
    brief = plan.calls.get("brief", 0.0)
    rate = plan.measured.captioner.role("brief") if brief else None
    share = 1 + plan.measured.captioner.again
    off = {
        "calls": brief * share,
        "prompt tokens": brief * share * rate.prompt_tokens if rate else 0.0,
        "tokens": brief * share * rate.tokens if rate else 0.0,
    }
    for name, planned, came in (
        ("clips", plan.clips, actual.clips),
        ("key frames", plan.key_frames, actual.key_frames),
        ("calls", plan.total_calls, actual.calls),
        ("prompt tokens", plan.prompt_tokens, actual.prompt_tokens),
        ("tokens", plan.tokens, actual.tokens),
        ("hours", plan.hours, actual.hours),
    ):
        less = off.get(name, 0.0)
        yield name, planned.estimate - less, planned.low - less, planned.high - less, came
