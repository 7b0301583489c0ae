"""The events of a synthetic clip by their usual names: what happens when, and whether sampling shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from share4video.synthetic import language
from share4video.synthetic.known_facts import blinked, interval_changes, sampled_times
from share4video.synthetic.questions import SAMPLING_S
from share4video.synthetic.world import MIN_STATE_S, Clip, Event, Motion

_ROUNDING_S = 1e-9


@dataclass(frozen=True)
class Happening:
    """An event by its usual name.

    Attributes:
        name: appears, disappears, returns, changes colour, stops, turns, blink, scene cut or camera pan.
        object: as captions name it before the event.
        value: the new colour or ground; the direction of a pan, before a stop or after a turn.
        observable: 2 s sampling shows it without doubt: the change itself, the movement before a stop and the
            rest after it, the movements before and after a turn, the body out of view in a blink.
        short: it is over before every sampling could show it.
    """

    name: str
    object: str
    value: str
    start_s: float
    end_s: float
    observable: bool
    short: bool = False


def happenings(clip: Clip) -> list[Happening]:
    """Return the events of a clip in order of time, from its motions and events alone.

    A body that comes back after it had disappeared returns. One stops where it then stays in view and still
    for at least `MIN_STATE_S`, and turns where it goes on in another direction within a sampling interval.
    """
    sampled = _Sampled(clip)
    found = [_named(clip, event, sampled) for event in clip.events]
    for body in range(len(clip.bodies)):
        found += _stops_and_turns(clip, body, sampled)
    return sorted(found, key=lambda happening: happening.start_s)


class _Sampled:
    """What sampling every 2 s shows of a clip."""

    def __init__(self, clip: Clip) -> None:
        self.clip, self.times_s = clip, sampled_times(clip)
        self.facts = [change.fact for change in interval_changes(clip) if change.observable]
        self.blinked = blinked(clip, self.times_s)

    def shows(self, predicate: str, about: str, value: str, start_s: float, end_s: float) -> bool:
        """Whether an interval between samples that touches the span shows this; ``about`` may be a shape."""
        return any(
            (fact.predicate, fact.object.split(" ")[-1], fact.value) == (predicate, about, value)
            and fact.time_s >= start_s
            and fact.time_s - SAMPLING_S < end_s
            for fact in self.facts
        )

    def moves(self, motion: Motion) -> bool:
        shape = self.clip.bodies[motion.body].shape
        return self.shows("moves", shape, motion.direction, motion.start_s, motion.end_s)

    def rests(self, body: int, start_s: float, end_s: float) -> bool:
        """Whether two consecutive samples inside the span show the body."""
        inside = [t for t in self.times_s if start_s <= t <= end_s]
        shown = [any(seen.body == body for seen in self.clip.state_at(t).bodies) for t in inside]
        return any(one and two for one, two in zip(shown, shown[1:], strict=False))

    def blinks(self, blink: Event) -> bool:
        inside = [i for i, t in enumerate(self.times_s) if blink.start_s <= t < blink.end_s]
        return any(blink not in self.clip.blinks or blink.body in self.blinked[i] for i in inside)


def _named(clip: Clip, event: Event, sampled: _Sampled) -> Happening:
    """Give one of the clip's own events its usual name."""
    span = (event.start_s, event.end_s)
    if event.body is None:
        name, about, predicate = {
            "cut": ("scene cut", language.SCENE, "cut"),
            "pan": ("camera pan", language.CAMERA, "pans"),
        }[event.kind]
        return Happening(name, about, event.value, *span, sampled.shows(predicate, about, event.value, *span))
    about = _name_of(clip, event.body, event.start_s)
    if event.kind == "blinks":
        return Happening("blink", about, "", *span, sampled.blinks(event), short=event in clip.blinks)
    before = [e.kind for e in clip.events if e.body == event.body and e.start_s < event.start_s]
    name = event.kind.replace("turns_colour", "changes colour")
    if event.kind == "appears" and "disappears" in before:
        name = "returns"
    seen = sampled.shows(event.kind, clip.bodies[event.body].shape, event.value, *span)
    return Happening(name, about, event.value, *span, seen)


def _stops_and_turns(clip: Clip, body: int, sampled: _Sampled) -> Iterator[Happening]:
    motions = sorted((m for m in clip.motions if m.body == body), key=lambda m: m.start_s)
    gone_s = [event.start_s for event in clip.events if event.kind == "disappears" and event.body == body]
    for number, motion in enumerate(motions):
        later = motions[number + 1] if number + 1 < len(motions) else None
        end_s = motion.end_s
        until_s = min((t for t in gone_s if t > end_s - _ROUNDING_S), default=clip.duration_s)
        name = _name_of(clip, body, end_s)
        if later is None or later.start_s - end_s >= MIN_STATE_S - _ROUNDING_S:
            rest_s = min(until_s, later.start_s) if later else until_s
            if rest_s - end_s >= MIN_STATE_S - _ROUNDING_S:
                seen = sampled.moves(motion) and sampled.rests(body, end_s, rest_s)
                yield Happening("stops", name, motion.direction, end_s, end_s, seen)
        elif (
            later.direction != motion.direction
            and later.start_s - end_s <= SAMPLING_S
            and later.start_s < until_s
        ):
            seen = sampled.moves(motion) and sampled.moves(later)
            yield Happening("turns", name, later.direction, later.start_s, later.start_s, seen)


def _name_of(clip: Clip, body: int, time_s: float) -> str:
    """Return what captions call a body just before ``time_s``."""
    colour = clip.bodies[body].colour
    for event in clip.events:
        if event.kind == "turns_colour" and event.body == body and event.start_s < time_s:
            colour = event.value
    return f"{colour} {clip.bodies[body].shape}"
