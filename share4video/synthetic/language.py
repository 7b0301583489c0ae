"""What can be said about a synthetic clip: reference captions from templates, and facts read back.

The facts of a pair of frames are a function of what the two frames show, so a reference differential
caption never says more than a perfect observer of the two frames could. ``parse`` reads every template
written here, whatever model repeats it, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from share4video.synthetic.world import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SIZES, Clip, Seen, State

MOVED = 0.05  # of the side; a smaller displacement between two frames is not described
SURE_MOVED = 0.08  # from here on a displacement is observable without doubt
DOMINANT = 1.6  # how much longer one axis must be for a direction to be without doubt

SCENE, CAMERA = "scene", "camera"


@dataclass(frozen=True)
class Fact:
    """``object`` did or has ``predicate`` ``value``, first visible at ``time_s``.

    Predicates: present, size, background (of a first frame); moves, appears, disappears, turns_colour,
    cut, pans (of a pair).
    """

    object: str
    predicate: str
    value: str
    time_s: float


@dataclass(frozen=True)
class Change:
    """A fact that is true of two frames, and whether sampling makes it observable without doubt."""

    fact: Fact
    observable: bool


# ------------------------------------------------------------------ truth


def first_facts(state: State, time_s: float) -> list[Fact]:
    """Facts of a single frame: its background, and the name and size of each body."""
    facts = [Fact(SCENE, "background", state.background, time_s)]
    for seen in in_order(state.bodies):
        facts.append(Fact(seen.name, "present", "", time_s))
        facts.append(Fact(seen.name, "size", seen.size, time_s))
    return facts


def changes_between(before: State, after: State, time_s: float) -> list[Change]:
    """Facts of a pair of frames in the order captions give them; ``time_s`` is the later frame's."""
    changes = []
    if after.background != before.background:
        changes.append(Change(Fact(SCENE, "cut", after.background, time_s), True))
    shift = after.camera_x - before.camera_x
    if abs(shift) >= MOVED:
        direction = "right" if shift > 0 else "left"
        changes.append(Change(Fact(CAMERA, "pans", direction, time_s), abs(shift) >= SURE_MOVED))
    then = {seen.body: seen for seen in before.bodies}
    now = {seen.body: seen for seen in after.bodies}
    for seen in in_order([*before.bodies, *(b for b in after.bodies if b.body not in then)]):
        old, new = then.get(seen.body), now.get(seen.body)
        if old is None:
            changes.append(Change(Fact(seen.name, "appears", "", time_s), True))
            changes.append(Change(Fact(seen.name, "size", seen.size, time_s), True))
        elif new is None:
            changes.append(Change(Fact(old.name, "disappears", "", time_s), True))
        else:
            if new.colour != old.colour:
                changes.append(Change(Fact(old.name, "turns_colour", new.colour, time_s), True))
            changes.extend(motion_between(old, new, time_s))
    return changes


def motion_between(old: Seen, new: Seen, time_s: float) -> list[Change]:
    """Return the motion of one body between two frames, where it is far enough to be described."""
    dx, dy = new.world_x - old.world_x, new.y - old.y
    long, short = max(abs(dx), abs(dy)), min(abs(dx), abs(dy))
    if long < MOVED:
        return []
    across, along = "right" if dx > 0 else "left", "down" if dy > 0 else "up"
    direction = across if abs(dx) >= abs(dy) else along
    sure = long >= SURE_MOVED and long >= DOMINANT * short
    return [Change(Fact(new.name, "moves", direction, time_s), sure)]


def in_order(bodies: Iterable[Seen]) -> list[Seen]:
    """The order in which captions name bodies: by shape, which no clip repeats."""
    return sorted(bodies, key=lambda seen: SHAPES.index(seen.shape))


def clip_changes(clip: Clip, times_s: Sequence[float]) -> list[list[Change]]:
    """Changes of each sampling interval; ``times_s`` are the sampled times, one list per later time."""
    states = [clip.state_at(time_s) for time_s in times_s]
    return [
        changes_between(before, after, time_s)
        for before, after, time_s in zip(states, states[1:], times_s[1:], strict=False)
    ]


# ------------------------------------------------------------------ words

_FIRST = ("{things} {be} on a {ground} background.", "There {be} {things} on a {ground} background.")
_SENTENCES = {
    "moves": ("The {object} moves {value}.", "The {object} is moving {value}."),
    "appears": ("A {size} {object} appears.", "A {size} {object} comes into view."),
    "disappears": ("The {object} disappears.", "The {object} is gone."),
    "turns_colour": ("The {object} turns {value}.", "The {object} changes colour to {value}."),
    "cut": ("The scene cuts to a {value} background.", "The background becomes {value}."),
    "pans": ("The camera pans {value}.", "The camera turns {value}."),
}
_NOTHING = ("Nothing changes.", "Everything stays the same.")
_BRIEF = (
    "{things} on a {ground} background.",
    "There {be} {things} on a {ground} background.",
    "On a {ground} background {be} {things}.",
    "{things} can be seen on a {ground} background.",
)
_BRIEF_EMPTY = (
    "An empty {ground} background.",
    "There is nothing on a {ground} background.",
    "Nothing but an empty {ground} background.",
)
CANONICAL_SHARE = 0.8  # how often a template's first wording is used


def _pick(
    rng: np.random.Generator | None, wordings: Sequence[str], canonical_share: float = CANONICAL_SHARE
) -> str:
    if rng is None or rng.random() < canonical_share:
        return wordings[0]
    return wordings[int(rng.integers(1, len(wordings)))]


def things(state: State, *, sizes: bool = True) -> str:
    """Return ``a large red circle and a small blue square``."""
    named = [f"a {seen.size + ' ' if sizes else ''}{seen.name}" for seen in in_order(state.bodies)]
    if len(named) > 2:
        return ", ".join(named[:-1]) + " and " + named[-1]
    return " and ".join(named)


def first_caption(state: State, rng: np.random.Generator | None = None) -> str:
    """Caption of a single frame; without ``rng`` in the canonical wording."""
    if not state.bodies:
        return f"The {state.background} background is empty."
    be = "are" if len(state.bodies) > 1 else "is"
    text = _pick(rng, _FIRST).format(things=things(state), be=be, ground=state.background)
    return text[0].upper() + text[1:]


def differential_caption(changes: Sequence[Change], rng: np.random.Generator | None = None) -> str:
    """Caption of what changed between two frames."""
    sizes = {c.fact.object: c.fact.value for c in changes if c.fact.predicate == "size"}
    sentences = []
    for change in changes:
        fact = change.fact
        if fact.predicate == "size":
            continue
        wording = _pick(rng, _SENTENCES[fact.predicate])
        sentences.append(
            wording.format(object=fact.object, value=fact.value, size=sizes.get(fact.object, ""))
        )
    return " ".join(sentences) if sentences else _pick(rng, _NOTHING)


def is_nothing(caption: str) -> bool:
    return caption.strip() in _NOTHING


def summary_caption(captions: Sequence[tuple[float, str]]) -> str:
    """Join timed differential captions into the caption of the whole clip, dropping empty ones."""
    parts = [f"At {t:.2f} seconds: {text}" for t, text in captions if not is_nothing(text)]
    return " ".join(parts)


def brief_caption(states: Sequence[State], rng: np.random.Generator | None = None) -> str:
    """One sentence over a few uniform frames: what is seen, and which of it moves.

    With ``rng`` never in the canonical wording: of a single sentence, most paraphrases would be equal.
    """
    seen: dict[int, Seen] = {}
    moving: set[int] = set()
    for state in states:
        for body in state.bodies:
            first = seen.setdefault(body.body, body)
            if max(abs(body.world_x - first.world_x), abs(body.y - first.y)) >= MOVED:
                moving.add(body.body)
    ground = states[0].background
    named = [
        f"a {'moving' if body.body in moving else 'still'} {body.name}" for body in in_order(seen.values())
    ]
    be = "are" if len(named) > 1 else "is"
    wording = _pick(rng, _BRIEF if named else _BRIEF_EMPTY, canonical_share=0.0)
    text = wording.format(things=" and ".join(named), be=be, ground=ground)
    return text[0].upper() + text[1:]


def fast_caption(per_image: Sequence[tuple[int, str]]) -> str:
    """Caption of a strip of key frames, each change with the number of the image that first shows it.

    Images are numbered from 0, as the strip labels them.
    """
    return " ".join(f"In image {number}: {text}" for number, text in per_image if not is_nothing(text))


# ------------------------------------------------------------------ reading back

_NAME = rf"(?P<object>(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)}))"
_SIZE = rf"(?P<size>{'|'.join(SIZES)})"
_WAY = rf"(?P<value>{'|'.join(DIRECTIONS)})"
_GROUND = rf"(?P<value>{'|'.join(BACKGROUNDS)})"
_PATTERNS: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (predicate, subject, re.compile(pattern, re.IGNORECASE))
    for predicate, subject, pattern in (
        ("moves", "", rf"the {_NAME} (?:moves|is moving) {_WAY}\b"),
        ("appears", "", rf"an? {_SIZE} {_NAME} (?:appears|comes into view)"),
        ("disappears", "", rf"the {_NAME} (?:disappears|is gone)"),
        ("turns_colour", "", rf"the {_NAME} (?:turns|changes colour to) (?P<value>{'|'.join(COLOURS)})\b"),
        ("cut", SCENE, rf"(?:scene cuts to a {_GROUND} background|background becomes (?P<other>\w+))"),
        ("pans", CAMERA, rf"the camera (?:pans|turns) {_WAY}\b"),
        ("background", SCENE, rf"(?:on a {_GROUND} background|the (?P<other>\w+) background is empty)"),
    )
)
_THING = re.compile(rf"an? {_SIZE} {_NAME}", re.IGNORECASE)
_TIMED = re.compile(r"At (\d+\.\d\d) seconds: ")
_IMAGE = re.compile(r"In image (\d+): ")


def parse(caption: str, time_s: float) -> list[Fact]:
    """Read the facts of an untimed caption (first frame or differential); unknown wording gives none."""
    facts: list[Fact] = []
    for sentence in re.split(r"(?<=\.)\s+", caption.strip()):
        facts.extend(_parse_sentence(sentence, time_s))
    return facts


def _parse_sentence(sentence: str, time_s: float) -> list[Fact]:
    for predicate, subject, pattern in _PATTERNS:
        match = pattern.search(sentence)
        if not match:
            continue
        groups = match.groupdict()
        value = (groups.get("value") or groups.get("other") or "").lower()
        name = (groups.get("object") or subject).lower()
        facts = [Fact(name, predicate, value, time_s)]
        if predicate == "appears":
            facts.append(Fact(name, "size", groups["size"].lower(), time_s))
        if predicate == "background":
            for thing in _THING.finditer(sentence):
                seen = thing.group("object").lower()
                facts.append(Fact(seen, "present", "", time_s))
                facts.append(Fact(seen, "size", thing.group("size").lower(), time_s))
        return facts
    return []


def parse_summary(caption: str) -> list[Fact]:
    """Read the facts of a summary whose parts begin with ``At 4.00 seconds:``."""
    pieces = _TIMED.split(caption)
    facts: list[Fact] = []
    for time_text, text in zip(pieces[1::2], pieces[2::2], strict=False):
        facts.extend(parse(text, float(time_text)))
    return facts


def parse_fast(caption: str, times_s: Sequence[float]) -> list[Fact]:
    """Read the facts of a fast caption; ``times_s`` are the times of the strip's images."""
    pieces = _IMAGE.split(caption)
    facts: list[Fact] = []
    for number, text in zip(pieces[1::2], pieces[2::2], strict=False):
        if int(number) < len(times_s):
            facts.extend(parse(text, times_s[int(number)]))
    return facts


_BRIEF_THING = re.compile(rf"\ban? (?P<manner>moving|still) {_NAME}", re.IGNORECASE)
_BRIEF_GROUND = re.compile(rf"\b(?:on an?|an empty) {_GROUND} background", re.IGNORECASE)


def parse_brief(caption: str) -> list[Fact]:
    """Read the facts of a brief caption; they hold for the whole clip and have time 0.

    Beside ``present`` and ``background`` it has the predicates ``moving`` and ``still``, which no other
    caption uses.
    """
    facts = [
        Fact(SCENE, "background", ground.group("value").lower(), 0.0)
        for ground in _BRIEF_GROUND.finditer(caption)
    ]
    for thing in _BRIEF_THING.finditer(caption):
        name = thing.group("object").lower()
        facts += [Fact(name, "present", "", 0.0), Fact(name, thing.group("manner").lower(), "", 0.0)]
    return facts
