"""Counterfactual twins: the same clip played backwards, in another order, or with one fact changed.

A model that names what it sees without looking at time answers the same for a clip and its twin.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from share4video.synthetic.world import BACKGROUNDS, DIRECTIONS, Clip, Event, Motion, clear_of_each_other

OPPOSITE = {"right": "left", "left": "right", "up": "down", "down": "up"}
_TRIES = 40
_CHECK_EVERY_S = 0.2


def reversed_clip(clip: Clip) -> Clip:
    """Return the clip whose frame at t is this clip's frame at ``duration_s - t``."""
    end, total = clip.duration_s, clip.state_at(clip.duration_s)
    final = {seen.body: seen for seen in total.bodies}
    colours = _final_colours(clip)
    bodies = []
    for index, body in enumerate(clip.bodies):
        x, y = clip.position(index, end)
        bodies.append(replace(body, x=x, y=y, present=index in final, colour=colours[index]))
    motions = tuple(
        Motion(m.body, OPPOSITE[m.direction], m.speed, end - m.end_s, end - m.start_s)
        for m in reversed(clip.motions)
    )
    events = tuple(_reversed_event(clip, event) for event in reversed(clip.events))
    return replace(
        clip,
        background=total.background,
        bodies=tuple(bodies),
        motions=motions,
        events=events,
        camera_x=total.camera_x,
    )


def _final_colours(clip: Clip) -> list[str]:
    colours = [body.colour for body in clip.bodies]
    for event in clip.events:
        if event.kind == "turns_colour" and event.body is not None:
            colours[event.body] = event.value
    return colours


def _reversed_event(clip: Clip, event: Event) -> Event:
    start_s, end_s = clip.duration_s - event.end_s, clip.duration_s - event.start_s
    if event.kind == "appears":
        return replace(event, kind="disappears", start_s=start_s, end_s=end_s)
    if event.kind == "disappears":
        return replace(event, kind="appears", start_s=start_s, end_s=end_s)
    value = event.value
    if event.kind == "pan":
        value = OPPOSITE[event.value]
    elif event.kind == "cut":
        value = clip.state_at(event.start_s - 1e-6).background
    elif event.kind == "turns_colour":
        earlier = [
            other.value
            for other in clip.events
            if other.kind == "turns_colour" and other.body == event.body and other.start_s < event.start_s
        ]
        assert event.body is not None
        value = earlier[-1] if earlier else clip.bodies[event.body].colour
    return replace(event, start_s=start_s, end_s=end_s, value=value)


def reordered_clip(clip: Clip, seed: int) -> Clip | None:
    """Return the clip with two of its motions in exchanged places, or None where none can be exchanged."""
    rng = np.random.default_rng([seed, 21])
    for _ in range(_TRIES):
        if len(clip.motions) < 2:
            return None
        one, two = (int(i) for i in rng.choice(len(clip.motions), size=2, replace=False))
        first, second = clip.motions[one], clip.motions[two]
        if (first.body, first.direction) == (second.body, second.direction):
            continue
        motions = list(clip.motions)
        motions[one] = replace(second, start_s=first.start_s, end_s=first.end_s)
        motions[two] = replace(first, start_s=second.start_s, end_s=second.end_s)
        twin = replace(clip, motions=tuple(motions))
        if _possible(twin):
            return twin
    return None


def changed_clip(clip: Clip, seed: int) -> Clip | None:
    """Return the clip with one motion's direction or one cut's background changed, or None."""
    rng = np.random.default_rng([seed, 22])
    for _ in range(_TRIES):
        cuts = [i for i, event in enumerate(clip.events) if event.kind == "cut"]
        if clip.motions and (not cuts or rng.random() < 0.8):
            index = int(rng.integers(len(clip.motions)))
            others = [d for d in DIRECTIONS if d != clip.motions[index].direction]
            motions = list(clip.motions)
            motions[index] = replace(motions[index], direction=str(rng.choice(others)))
            twin = replace(clip, motions=tuple(motions))
        elif cuts:
            index = int(rng.choice(cuts))
            before = clip.state_at(clip.events[index].start_s - 1e-6).background
            free = [name for name in BACKGROUNDS if name not in (before, clip.events[index].value)]
            events = list(clip.events)
            events[index] = replace(events[index], value=free[0])
            twin = replace(clip, events=tuple(events))
        else:
            return None
        if _possible(twin):
            return twin
    return None


def _possible(clip: Clip) -> bool:
    times = np.arange(0.0, clip.duration_s, _CHECK_EVERY_S)
    return clear_of_each_other(clip, [float(t) for t in times])
