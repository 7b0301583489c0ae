"""What a run came to, read from what it published, beside what was planned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from share4video.captioning.derived import CALL_FAILED
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.outputs import stored_manifests
from share4video.dataset.shards import read_table
from share4video.planning.estimate import Plan
from share4video.planning.usage import read_usage
from share4video.store import Store

_PUBLISHED = 2  # place among the inputs, after clips and key frames, of the dataset that captions came from
_COLUMNS = ["clip_id", "checks", "prompt_tokens", "tokens"]


@dataclass(frozen=True)
class Actual:
    """Sums over a caption output. ``hours`` are None where nobody kept them.

    Calls are those whose answers were published: a first try whose caption was asked for again is not in the
    tables, and neither is a clip that was rejected. Clips whose captions were taken over from a published
    dataset are not counted, as long as the store holds that dataset.
    """

    clips: int
    key_frames: int
    calls: int
    prompt_tokens: int
    tokens: int
    hours: float | None


def read_actual(store: Store, ref: StageRef) -> Actual:
    """Read a published output of the caption stage."""
    taken_over = _taken_over(store, ref)
    differentials, captions = (
        _without(read_table(store, ref, name, columns=_COLUMNS), taken_over)
        for name in ("differentials", "captions")
    )
    usage = read_usage(store, ref)
    both = (differentials, captions)
    return Actual(
        clips=len(pc.unique(captions["clip_id"])),
        key_frames=len(differentials),
        calls=sum(len(table) - _failed_calls(table) for table in both),
        prompt_tokens=sum(pc.sum(table["prompt_tokens"]).as_py() or 0 for table in both),
        tokens=sum(pc.sum(table["tokens"]).as_py() or 0 for table in both),
        hours=sum(one.seconds for one in usage) / 3600 if usage else None,
    )


def _taken_over(store: Store, ref: StageRef) -> pa.Array:
    """Return the ids of the clips that were captioned before, in the dataset that the output names."""
    wanted = load_manifest(store, ref).inputs[_PUBLISHED:]
    for manifest in stored_manifests(store, "dataset") if wanted else ():
        if manifest.content_hash in wanted:
            return read_table(store, manifest.ref, "clips", columns=["clip_id"])["clip_id"].unique()
    return pa.array([], pa.string())


def _without(table: pa.Table, clip_ids: pa.Array) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["clip_id"], clip_ids)))


def _failed_calls(table: pa.Table) -> int:
    """Count the rows that stand for a call without an answer."""
    return sum(CALL_FAILED in checks for checks in table["checks"].to_pylist())


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
