"""The fact funnel: how much of what is true of the clips arrives in their captions, and where it is lost.

A fact is one thing that is true at one sampling interval of one clip: "the red circle moves left" at 6 s.
Every stage holds the facts of the stage before that came through, matched one-to-one within one sampling
interval as caption scores are, so the numbers can only fall, and each fall belongs to one part of the system.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from share4video.evaluation.captions import SAMPLING_INTERVAL_S
from share4video.report.run_tables import RunTables
from share4video.synthetic.caption_scores import predicted_facts, read_facts, truth_file
from share4video.synthetic.language import Fact, changes_between, first_facts
from share4video.synthetic.truth import read_clip
from share4video.synthetic.world import Clip

_MOMENT_S = 0.1  # how finely a clip is looked at for what comes and goes between two samples
_SUDDEN = frozenset({"appears", "disappears", "turns_colour", "cut"})
_ROUNDING_S = 1e-6
_EXAMPLES = 4

STAGES: tuple[tuple[str, str], ...] = (
    (
        "facts in the clip",
        "Everything that is true of a clip at one sampling interval or between two: what is there at the"
        " start, every movement, appearance, change of colour, cut and camera pan.",
    ),
    (
        "visible at 2 s",
        "Of those, what frames taken every 2 seconds show without doubt. Lost are states shorter than 2.5 s,"
        " which are seen by chance if at all, what happens after the last sample, and movements too small or"
        " too oblique to call.",
    ),
    (
        "in key frames",
        "Of those, what a perfect observer could tell who sees the chosen key frames alone. Lost here is what"
        " the key-frame filter passed over.",
    ),
    (
        "in differentials",
        "Of those, what the differential captions say, within one sampling interval. Lost here is what the"
        " captioner missed or got wrong.",
    ),
    (
        "in the summary",
        "Of those, what the summary of the whole clip says at about the right time. Lost here is what the"
        " summariser dropped or moved.",
    ),
)
KINDS = {
    "present": "objects",
    "size": "sizes",
    "background": "backgrounds",
    "moves": "movements",
    "appears": "appearances",
    "disappears": "disappearances",
    "turns_colour": "colour changes",
    "cut": "scene cuts",
    "pans": "camera pans",
}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class FunnelStage:
    """How many facts are left, of which kinds, and some of those that were lost on the way here."""

    label: str
    definition: str
    facts: int
    kinds: Mapping[str, int]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Funnel:
    """``stages`` in order; the numbers never rise. ``clips`` is how many clips' truth is known."""

    clips: int
    stages: tuple[FunnelStage, ...]

    @property
    def total(self) -> int:
        return self.stages[0].facts

    @property
    def kinds(self) -> list[str]:
        """The kinds of facts there are, in a fixed order."""
        return [kind for kind in KINDS if self.stages[0].kinds.get(kind)]


def fact_funnel(tables: RunTables, truth: Path) -> Funnel | None:
    """Follow the facts of all captioned clips of known truth; None where there is none.

    Args:
        truth: folder of the clips' truth, by the stem of the source file.
    """
    sliding: defaultdict[str, list[Row]] = defaultdict(list)
    for row in tables.differentials().sort_by("index").to_pylist():
        sliding[row["clip_id"]].append(row)
    summaries = {row["clip_id"]: row for row in tables.captions().to_pylist() if row["role"] == "summary"}
    counts = [Counter[str]() for _ in STAGES]
    lost: list[list[str]] = [[] for _ in STAGES]
    clips = 0
    for row in tables.clips().sort_by("source_uri").to_pylist():
        file, clip_id = truth_file(truth, row), row["clip_id"]
        if file is None or not sliding[clip_id]:
            continue
        clips += 1
        left = facts_left(file, sliding[clip_id], summaries.get(clip_id))
        for number, facts in enumerate(left):
            counts[number].update(fact.predicate for fact in facts)
            if number and len(lost[number]) < _EXAMPLES:
                gone = without(left[number - 1], facts)
                lost[number] += [f"{row['source_uri']}, {f.time_s:.2f} s: {say(f)}" for f in gone[:1]]
    if not clips:
        return None
    stages = (
        FunnelStage(label, definition, counts[i].total(), dict(counts[i]), tuple(lost[i]))
        for i, (label, definition) in enumerate(STAGES)
    )
    return Funnel(clips, tuple(stages))


def facts_left(truth: Path, differentials: Sequence[Row], summary: Row | None) -> list[list[Fact]]:
    """Return the facts of one clip that reach each of `STAGES`.

    Args:
        truth: the clip's truth file.
        differentials: the clip's rows, by index; there is one for every key frame.
        summary: the clip's row of table ``captions``, None where it has no summary.
    """
    clip = read_clip(truth)
    known = read_facts(truth)
    sampled = [*known.observable, *known.doubtful, *known.short]
    sudden = _sudden_facts(clip)
    hidden = without(sudden, told(sudden, sampled))
    shown = _key_frame_facts(clip, [row["end_s"] for row in differentials])
    said = [
        predicted_facts("sliding", differentials, None) or [],
        predicted_facts("summary", differentials, summary) or [],
    ]
    left = [[*sampled, *hidden], list(known.observable)]
    for facts in (shown, *said):
        left.append(told(left[-1], facts))
    return left


def told(true: Iterable[Fact], said: Iterable[Fact], tolerance_s: float = SAMPLING_INTERVAL_S) -> list[Fact]:
    """Return as many of the ``true`` facts as can be matched one-to-one with what was ``said``.

    Both matched facts are equal but for their times, which differ by at most the tolerance. Since all
    tolerances are equal, taking the earliest that fits, in order of time, matches the most.
    """
    said_s: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    for fact in sorted(said, key=lambda fact: fact.time_s, reverse=True):
        said_s[fact.object, fact.predicate, fact.value].append(fact.time_s)
    found = []
    for fact in sorted(true, key=lambda fact: fact.time_s):
        times_s = said_s[fact.object, fact.predicate, fact.value]
        while times_s and times_s[-1] < fact.time_s - tolerance_s - _ROUNDING_S:
            times_s.pop()
        if times_s and times_s[-1] <= fact.time_s + tolerance_s + _ROUNDING_S:
            times_s.pop()
            found.append(fact)
    return found


def say(fact: Fact) -> str:
    """Say a fact in a few words."""
    words = {
        "present": f"there is a {fact.object}",
        "size": f"the {fact.object} is {fact.value}",
        "background": f"the background is {fact.value}",
        "moves": f"the {fact.object} moves {fact.value}",
        "appears": f"the {fact.object} appears",
        "disappears": f"the {fact.object} disappears",
        "turns_colour": f"the {fact.object} turns {fact.value}",
        "cut": f"the scene cuts to {fact.value}",
        "pans": f"the camera pans {fact.value}",
    }
    return words.get(fact.predicate, f"{fact.object} {fact.predicate} {fact.value}".strip())


def without(facts: Iterable[Fact], taken: Iterable[Fact]) -> list[Fact]:
    """Return ``facts`` less ``taken``, one for one, in order of time."""
    rest = Counter(facts)
    rest.subtract(Counter(taken))
    return sorted(rest.elements(), key=lambda fact: fact.time_s)


def _sudden_facts(clip: Clip) -> list[Fact]:
    """Return what happens in a moment, found by looking closely; sampling may pass it over."""
    times_s = [_MOMENT_S * step for step in range(math.ceil(clip.duration_s / _MOMENT_S))]
    found, before = [], clip.state_at(0.0)
    for time_s in times_s[1:]:
        after = clip.state_at(time_s)
        changes = changes_between(before, after, round(time_s, 2))
        found += [change.fact for change in changes if change.fact.predicate in _SUDDEN]
        before = after
    return found


def _key_frame_facts(clip: Clip, times_s: Sequence[float]) -> list[Fact]:
    """Return all that frames at ``times_s`` show of a clip."""
    states = [clip.state_at(time_s) for time_s in times_s]
    facts = first_facts(states[0], times_s[0])
    for before, after, time_s in zip(states, states[1:], times_s[1:], strict=False):
        facts += [change.fact for change in changes_between(before, after, time_s)]
    return facts
