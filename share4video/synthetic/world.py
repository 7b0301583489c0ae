"""The world of the synthetic clips: a few objects, what they do and when, as data with known truth.

Positions and sizes are fractions of the frame's side, y grows downwards, times are seconds. A clip is
analytic: ``state_at(t)`` is exact for every t, so truth never depends on a frame rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

SHAPES = ("circle", "square", "triangle")
COLOURS = ("red", "green", "blue", "yellow")
SIZES = {"small": 0.26, "large": 0.36}
DIRECTIONS = {"right": (1.0, 0.0), "left": (-1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
BACKGROUNDS = ("grey", "dark", "light")

FPS = 8  # of a clip as a file
MIN_STATE_S = 2.5  # a state that lasts this long is seen at least once when sampled every 2 s
EDGE = 0.02  # free space kept between an object and the frame's edge
GAP = 0.03  # free space kept between two objects
SLOW, FAST = 0.075, 0.14  # speeds in sides per second

EventKind = Literal["appears", "disappears", "turns_colour", "cut", "pan", "blinks"]


@dataclass(frozen=True)
class Body:
    """An object as the clip introduces it. ``x``, ``y`` is its centre before it moves."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    present: bool = True  # in view at time 0


@dataclass(frozen=True)
class Motion:
    """Body number ``body`` moves straight at ``speed`` sides per second."""

    body: int
    direction: str
    speed: float
    start_s: float
    end_s: float

    def travelled(self, time_s: float) -> float:
        return self.speed * max(0.0, min(time_s, self.end_s) - self.start_s)


@dataclass(frozen=True)
class Event:
    """Something that happens at ``start_s`` (a pan or a blink lasts until ``end_s``).

    ``value`` is the new colour, the new background or the pan's direction.
    """

    kind: EventKind
    start_s: float
    end_s: float
    body: int | None = None
    value: str = ""


@dataclass(frozen=True)
class Seen:
    """A body as it is visible at one time; ``x``, ``y`` on the screen, ``world_x`` without the camera."""

    body: int
    shape: str
    colour: str
    size: str
    x: float
    y: float
    world_x: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class State:
    """What one frame shows."""

    bodies: tuple[Seen, ...]
    background: str
    camera_x: float


@dataclass(frozen=True)
class Clip:
    """A synthetic clip: everything that is true of it."""

    seed: int
    duration_s: float
    background: str
    bodies: tuple[Body, ...]
    motions: tuple[Motion, ...]
    events: tuple[Event, ...]
    camera_x: float = 0.0  # where the camera points at time 0

    @property
    def blinks(self) -> tuple[Event, ...]:
        """The short states: a body is out of view for less than `MIN_STATE_S`; nothing else is as short."""
        return tuple(
            event
            for event in self.events
            if event.kind == "blinks" and event.end_s - event.start_s < MIN_STATE_S
        )

    def without_blinks(self) -> Clip:
        """Return the clip as it would be without its short states."""
        return replace(self, events=tuple(event for event in self.events if event not in self.blinks))

    def state_at(self, time_s: float) -> State:
        """Return what is visible at ``time_s``."""
        background, camera_x = self.background, self.camera_x
        colours = [body.colour for body in self.bodies]
        present = [body.present for body in self.bodies]
        for event in self.events:
            if event.start_s > time_s:
                continue
            if event.kind == "cut":
                background = event.value
            elif event.kind == "pan":
                share = min(1.0, (time_s - event.start_s) / (event.end_s - event.start_s))
                camera_x += DIRECTIONS[event.value][0] * PAN_DISTANCE * share
            else:
                assert event.body is not None
                if event.kind == "turns_colour":
                    colours[event.body] = event.value
                elif event.kind == "blinks":
                    present[event.body] = present[event.body] and time_s >= event.end_s
                else:
                    present[event.body] = event.kind == "appears"
        seen = []
        for index, body in enumerate(self.bodies):
            if not present[index]:
                continue
            x, y = self.position(index, time_s)
            seen.append(Seen(index, body.shape, colours[index], body.size, x - camera_x, y, x))
        return State(tuple(seen), background, camera_x)

    def position(self, body: int, time_s: float) -> tuple[float, float]:
        x, y = self.bodies[body].x, self.bodies[body].y
        for motion in self.motions:
            if motion.body == body:
                dx, dy = DIRECTIONS[motion.direction]
                distance = motion.travelled(time_s)
                x, y = x + dx * distance, y + dy * distance
        return x, y


PAN_DISTANCE = 0.24

Combination = tuple[str, str, str]  # colour, shape, direction

# Never shown moving while training; every test clip shows at least one of them.
HELD_OUT: frozenset[Combination] = frozenset(
    {
        ("red", "circle", "left"),
        ("green", "square", "up"),
        ("blue", "triangle", "right"),
        ("yellow", "circle", "down"),
        ("red", "triangle", "up"),
        ("blue", "square", "left"),
    }
)
HELD_OUT_DURATION_S = (24.0, 27.0)

Split = Literal["train", "combination", "duration"]


def moving_combinations(clip: Clip) -> set[Combination]:
    """Return the (colour, shape, direction) of every motion, with the colour it has when it starts."""
    found = set()
    for motion in clip.motions:
        for seen in clip.state_at(motion.start_s + 1e-6).bodies:
            if seen.body == motion.body:
                found.add((seen.colour, seen.shape, motion.direction))
    return found


def sample_clip(
    seed: int,
    split: Split = "train",
    *,
    max_objects: int = 2,
    duration_s: tuple[float, float] = (10.0, 40.0),
) -> Clip:
    """Draw a clip; the same arguments give the same clip.

    ``train`` clips avoid the held-out combinations and durations; ``combination`` clips show at least one
    held-out combination; ``duration`` clips last as long as no training clip does.
    """
    rng = np.random.default_rng([seed, ("train", "combination", "duration").index(split)])
    while True:
        clip = _draw(rng, seed, max_objects, duration_s if split != "duration" else HELD_OUT_DURATION_S)
        if clip is None:
            continue
        held_out = bool(moving_combinations(clip) & HELD_OUT)
        banned_duration = HELD_OUT_DURATION_S[0] <= clip.duration_s <= HELD_OUT_DURATION_S[1]
        if split == "train" and (held_out or banned_duration):
            continue
        if split == "combination" and not held_out:
            continue
        return clip


def _draw(
    rng: np.random.Generator, seed: int, max_objects: int, duration_range_s: tuple[float, float]
) -> Clip | None:
    duration_s = round(float(rng.uniform(*duration_range_s)), 1)
    count = int(rng.integers(1, max_objects + 1))
    shapes = rng.permutation(SHAPES)[:count]
    colours = rng.permutation(COLOURS)[:count]
    bodies = []
    for index in range(count):
        size = "large" if rng.random() < (0.5 if count == 1 else 0.35) else "small"
        reach = SIZES[size] / 2 + EDGE
        x, y = (float(v) for v in rng.uniform(reach, 1 - reach, size=2))
        absent = rng.random() < (0.25 if count > 1 and index == 1 else 0.05)
        bodies.append(Body(str(shapes[index]), str(colours[index]), size, x, y, present=not absent))
    start = Clip(seed, duration_s, str(rng.choice(BACKGROUNDS)), tuple(bodies), (), ())
    if not clear_of_each_other(start, [0.0]):
        return None
    return _schedule(rng, start)


def _schedule(rng: np.random.Generator, clip: Clip) -> Clip | None:
    """Fill the clip's time with segments, each of one or two actions that fit."""
    time_s = float(rng.uniform(MIN_STATE_S, 4.0))
    while time_s < clip.duration_s - MIN_STATE_S:
        length_s = min(float(rng.uniform(MIN_STATE_S + 0.1, 5.0)), clip.duration_s - time_s)
        for _ in range(8):
            grown = _act(rng, clip, time_s, time_s + length_s)
            checks = np.arange(time_s, time_s + length_s + 0.2, 0.2)
            if grown is not None and clear_of_each_other(grown, [float(t) for t in checks]):
                clip = grown
                break
        time_s += length_s
    return clip if clip.motions or clip.events else None


def _act(rng: np.random.Generator, clip: Clip, start_s: float, end_s: float) -> Clip | None:
    state = clip.state_at(start_s)
    visible = [seen.body for seen in state.bodies]
    hidden = [index for index in range(len(clip.bodies)) if index not in visible]
    kind = str(
        rng.choice(
            ["move", "move_two", "appears", "disappears", "turns_colour", "cut", "pan", "idle", "blinks"],
            p=[0.45, 0.12, 0.12, 0.07, 0.10, 0.05, 0.04, 0.03, 0.02],
        )
    )
    events, motions = list(clip.events), list(clip.motions)
    if kind in ("move", "move_two"):
        for body in rng.permutation(visible)[: 2 if kind == "move_two" else 1]:
            motion = _motion_with_room(rng, clip, int(body), start_s, end_s)
            if motion is not None:
                motions.append(motion)
        if len(motions) == len(clip.motions):
            return None
    elif kind == "appears":
        if not hidden:
            return None
        events.append(Event("appears", start_s, start_s, hidden[0]))
    elif kind in ("disappears", "turns_colour", "blinks"):
        if not visible or (kind == "disappears" and len(visible) == 1 and rng.random() < 0.7):
            return None
        body = int(rng.choice(visible))
        if kind == "turns_colour":
            taken = {seen.colour for seen in state.bodies} | {clip.bodies[b].colour for b in hidden}
            free = [colour for colour in COLOURS if colour not in taken]
            events.append(Event("turns_colour", start_s, start_s, body, str(rng.choice(free))))
        elif kind == "blinks":
            events.append(Event("blinks", start_s, start_s + float(rng.uniform(0.4, 1.2)), body))
        else:
            events.append(Event("disappears", start_s, start_s, body))
    elif kind == "cut":
        others = [name for name in BACKGROUNDS if name != state.background]
        events.append(Event("cut", start_s, start_s, None, str(rng.choice(others))))
    elif kind == "pan":
        events.append(Event("pan", start_s, start_s + 2.0, None, str(rng.choice(["left", "right"]))))
    return replace(clip, motions=tuple(motions), events=tuple(events))


def _motion_with_room(
    rng: np.random.Generator, clip: Clip, body: int, start_s: float, end_s: float
) -> Motion | None:
    speed = float(rng.uniform(SLOW, FAST))
    for direction in rng.permutation(list(DIRECTIONS)):
        motion = Motion(body, str(direction), speed, start_s, end_s)
        moved = replace(clip, motions=(*clip.motions, motion))
        if clear_of_each_other(moved, [start_s + (end_s - start_s) * share for share in (0.35, 0.7, 1.0)]):
            return motion
    return None


def clear_of_each_other(clip: Clip, times_s: Sequence[float]) -> bool:
    """Whether at each time all visible bodies are fully inside the frame and apart from each other."""
    for time_s in times_s:
        bodies = clip.state_at(time_s).bodies
        for index, one in enumerate(bodies):
            reach = SIZES[one.size] / 2
            if not (reach + EDGE <= one.x <= 1 - reach - EDGE and reach + EDGE <= one.y <= 1 - reach - EDGE):
                return False
            for other in bodies[index + 1 :]:
                apart = reach + SIZES[other.size] / 2 + GAP
                if abs(one.x - other.x) < apart and abs(one.y - other.y) < apart:
                    return False
    return True
