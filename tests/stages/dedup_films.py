"""A film, twins that tell another story, and copies that tell the same one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from share4video.synthetic.world import Body, Clip, Event, Motion
from tests.curation.films import Rgb, brighter, cropped

FPS = 4

# A circle moves right and then turns blue; its twins do the same in another order, backwards, or in yellow.
CIRCLE = Body("circle", "red", "large", 0.25, 0.4)
STORY = Clip(
    1,
    14.0,
    "dark",
    (CIRCLE, Body("square", "green", "small", 0.7, 0.8)),
    (Motion(0, "right", 0.1, 3.0, 6.0),),
    (Event("turns_colour", 9.0, 9.0, 0, "blue"),),
)
TWINS = {
    "reordered": replace(
        STORY,
        motions=(replace(STORY.motions[0], start_s=8.0, end_s=11.0),),
        events=(replace(STORY.events[0], start_s=4.0, end_s=4.0),),
    ),
    "one-fact": replace(STORY, events=(replace(STORY.events[0], value="yellow"),)),
    "no-turn": replace(STORY, events=()),
    "another-start": replace(STORY, bodies=(replace(CIRCLE, shape="triangle"), STORY.bodies[1])),
    "another-object": replace(STORY, bodies=(CIRCLE, replace(STORY.bodies[1], colour="yellow"))),
}
COPIES: dict[str, Callable[[list[Rgb]], list[Rgb]]] = {
    "re-encoded": lambda frames: frames,
    "cropped": lambda frames: cropped(frames, 8),
    "brighter": lambda frames: brighter(frames, 1.15),
    "darker": lambda frames: brighter(frames, 0.85),
    "smaller": lambda frames: [np.ascontiguousarray(frame[::2, ::2]) for frame in frames],
}
