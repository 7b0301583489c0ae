"""Does a captioner look at time? A test that needs no labels: play the clip otherwise and compare the words.

A clip's key frames are captioned as they are, backwards, shuffled, and frozen (the first one over and over),
each time with times that ascend. What the differential captions say of change (`captioning.statements`) is
then known of the other orders from the first:

    reversed   what moves left moves right, what appears disappears, what opens closes
    order      what happens first happens last (of happenings that both orders tell once)
    shuffled   a step back in time inverts all that happened in between, where it was all of one kind
    frozen     nothing changes

A captioner that copies its last words, or guesses from a single frame, says the same of every order. What it
leaves out is no violation, it is counted as silent. In the spirit of TempCompass (arXiv 2403.00476), whose
reversed and concatenated videos have labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from share4video.captioning.statements import INVERSE, Statement, read_statements, same_subject
from share4video.evaluation.bootstrap import Interval, mean_interval

Playing = Literal["forward", "reversed", "shuffled", "frozen"]
Test = Literal["reversed", "order", "shuffled", "frozen"]
TESTS: tuple[Test, ...] = ("reversed", "order", "shuffled", "frozen")


class Played(BaseModel):
    """A clip captioned in one order.

    Attributes:
        order: the index of the key frame that was shown at each place.
        captions: the differential caption of each place after the first; None where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    order: tuple[int, ...]
    captions: tuple[str | None, ...]


class Finding(BaseModel):
    """One thing that was tested.

    Attributes:
        violated: whether it came out wrong; None where the captions are silent.
        step: at which place of the played order.
        expected: what should have been said, or ``nothing``.
        said: the caption there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    clip: str
    test: Test
    violated: bool | None
    step: int
    expected: str
    said: str


class Tally(BaseModel):
    """Findings of one test, counted; ``rate`` is of those that are not silent, over resampled clips."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    tested: int
    violated: int
    silent: int
    clips: int
    rate: Interval | None


def orders(clip: str, frames: int) -> dict[Playing, tuple[int, ...]]:
    """Return the orders in which a clip of so many key frames is played; equal clips are shuffled alike.

    Two frames have no other order than the reversed one, one frame has none at all.
    """
    played: dict[Playing, tuple[int, ...]] = {"forward": tuple(range(frames))}
    if frames < 2:
        return played
    played["reversed"] = tuple(reversed(range(frames)))
    if frames > 2:
        played["shuffled"] = _shuffled(clip, frames)
    played["frozen"] = (0,) * frames
    return played


def _shuffled(clip: str, frames: int) -> tuple[int, ...]:
    """Return an order by the hash of the clip's name, neither the true one nor the reversed one."""
    for attempt in range(1000):
        keys = [hashlib.sha256(f"{clip}/{attempt}/{index}".encode()).digest() for index in range(frames)]
        order = tuple(sorted(range(frames), key=keys.__getitem__))
        if order not in (tuple(range(frames)), tuple(reversed(range(frames)))):
            return order
    raise AssertionError("some order of three frames or more is another one")


def says_change(forward: Played) -> bool:
    """Whether there is anything to test in what was said of a clip."""
    return any(read_statements(caption) for caption in forward.captions if caption)


def audit_clip(clip: str, played: Mapping[Playing, Played]) -> list[Finding]:
    """Return what the captions of a clip in its orders show; nothing where no change was told.

    Args:
        played: ``forward`` and those of the other orders that were captioned.
    """
    forward = played["forward"]
    if not says_change(forward):
        return []
    findings: list[Finding] = []
    for test in ("reversed", "shuffled"):
        if other := played.get(test):
            findings += _inverted(clip, test, forward, other)
    if backwards := played.get("reversed"):
        findings += _in_order(clip, forward, backwards)
    if frozen := played.get("frozen"):
        findings += _still(clip, frozen)
    return findings


def summarise(findings: Sequence[Finding]) -> dict[Test, Tally]:
    """Count the findings of each test."""
    results: dict[Test, Tally] = {}
    for test in TESTS:
        mine = [finding for finding in findings if finding.test == test]
        spoken = [finding for finding in mine if finding.violated is not None]
        rate = None
        if spoken:
            clips = [finding.clip for finding in spoken]
            rate = mean_interval([float(bool(finding.violated)) for finding in spoken], clusters=clips)
        results[test] = Tally(
            tested=len(spoken),
            violated=sum(bool(finding.violated) for finding in spoken),
            silent=len(mine) - len(spoken),
            clips=len({finding.clip for finding in spoken}),
            rate=rate,
        )
    return results


Said = Sequence[Statement]
_PLANE = {"horizontal", "vertical"}


def _steps(played: Played) -> list[Said]:
    return [read_statements(caption) if caption else () for caption in played.captions]


def _inverted(clip: str, test: Test, forward: Played, other: Played) -> Iterator[Finding]:
    """Hold every step back in time against what happened in between when time ran forward."""
    steps = _steps(forward)
    for place, caption in enumerate(other.captions, 1):
        earlier, later = other.order[place], other.order[place - 1]
        if caption is None or earlier >= later or None in forward.captions[earlier:later]:
            continue
        between = steps[earlier:later]
        for happened in _all_of_one_kind(between):
            spoken = _told(happened, read_statements(caption), [s for said in between for s in said])
            expected = f"{_name(happened)}: {INVERSE[happened.value]}"
            violated = None if spoken is None else spoken == happened.value
            yield Finding(
                clip=clip, test=test, violated=violated, step=place, expected=expected, said=caption
            )


def _all_of_one_kind(between: Sequence[Said]) -> list[Statement]:
    """Return one statement for each subject and axis that changed in one way only, and no other name of it.

    A thing that moved left and then up may be anywhere; one that changed its colour has two names.
    """
    statements = [statement for said in between for statement in said]
    found: list[Statement] = []
    for one in statements:
        alike = [s for s in statements if s.head == one.head and s.axis == one.axis]
        other_ways = [s for s in statements if s.head == one.head and {s.axis, one.axis} == _PLANE]
        known = any(s.axis == one.axis and s.subject == one.subject for s in found)
        same = all(
            s.value == one.value and same_subject(s.subject, one.subject) for s in alike if s is not one
        )
        if not known and same and not (other_ways and len(between) > 1):
            found.append(one)
    return found


def _told(happened: Statement, said: Said, around: Said) -> str | None:
    """Return which way a caption says that the same thing changed; None where it does not say, or says both.

    A caption that says "he" is about whoever changed along this axis, where only one way was told.
    """
    axis = [statement for statement in said if statement.axis == happened.axis]
    named = [statement for statement in axis if same_subject(statement.subject, happened.subject)]
    only_way = len({s.value for s in around if s.axis == happened.axis}) == 1
    nameless = not happened.subject or all(not statement.subject for statement in axis)
    values = {statement.value for statement in (named or (axis if only_way and nameless else ()))}
    return values.pop() if len(values) == 1 else None


@dataclass(frozen=True)
class _Happening:
    """A statement, and the steps in a row that make it."""

    statement: Statement
    first: int
    last: int


def _in_order(clip: str, forward: Played, backwards: Played) -> Iterator[Finding]:
    """Hold every two happenings that come one after the other, and once, against their order backwards."""
    told, true = _happenings(_steps(backwards)), _happenings(_steps(forward))
    found = [(one, other) for one in _once(true) if (other := _match(one, told, true))]
    for one, one_there in found:
        for other, other_there in found:
            if one.last >= other.first or not _apart(one_there, other_there):
                continue
            said = f"{backwards.captions[one_there.first]} / {backwards.captions[other_there.first]}"
            yield Finding(
                clip=clip,
                test="order",
                violated=one_there.last < other_there.first,
                step=one_there.first + 1,
                expected=f"{_name(other.statement)} before {_name(one.statement)}",
                said=said,
            )


def _apart(one: _Happening, other: _Happening) -> bool:
    return one.last < other.first or other.last < one.first


def _happenings(steps: Sequence[Said]) -> list[_Happening]:
    """Return what happens, where the same is said of steps in a row as one."""
    found: list[_Happening] = []
    for step, said in enumerate(steps):
        for one in said:
            going_on = next(
                (h for h in found if h.last in (step - 1, step) and _same(h.statement, one)), None
            )
            if going_on is not None:
                found.remove(going_on)
            found.append(_Happening(one, going_on.first if going_on else step, step))
    return found


def _once(happenings: Sequence[_Happening]) -> list[_Happening]:
    """Return those that are told of one thing and once only."""
    return [
        one
        for one in happenings
        if one.statement.subject and sum(_same(one.statement, h.statement) for h in happenings) == 1
    ]


def _match(one: _Happening, told: Sequence[_Happening], true: Sequence[_Happening]) -> _Happening | None:
    """Return the same happening backwards: the one that inverts it, or the only one where there is one."""
    there, here = _alike(one, told), _alike(one, true)
    inverse = [other for other in there if other.statement.value == INVERSE[one.statement.value]]
    for found in (inverse, there if len(here) == 1 else []):
        if len(found) == 1:
            return found[0]
    return None


def _alike(one: _Happening, among: Sequence[_Happening]) -> list[_Happening]:
    """Return the happenings along one's axis to what may be the same thing."""
    name, axis = one.statement.subject, one.statement.axis
    return [h for h in among if h.statement.axis == axis and same_subject(h.statement.subject, name)]


def _same(one: Statement, other: Statement) -> bool:
    """Whether two statements are of one kind, and of things that go by one name."""
    return (one.head, one.axis, one.value) == (other.head, other.axis, other.value)


def _still(clip: str, frozen: Played) -> Iterator[Finding]:
    for place, caption in enumerate(frozen.captions, 1):
        if caption is not None:
            violated = bool(read_statements(caption))
            yield Finding(
                clip=clip, test="frozen", violated=violated, step=place, expected="nothing", said=caption
            )


def _name(statement: Statement) -> str:
    return f"{' '.join(statement.subject) or 'it'}, {statement.axis.replace(':', ' of ')}"
