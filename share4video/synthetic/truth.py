"""The truth beside a synthetic clip, as JSON: what happens when, and what of it sampling can observe."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from share4video.media.sampling import every
from share4video.synthetic import language
from share4video.synthetic.language import Change, Fact
from share4video.synthetic.questions import SAMPLING_S, questions_of_clip
from share4video.synthetic.world import Body, Clip, Event, Motion

PARAPHRASES = 3


def sampled_times(clip: Clip) -> list[float]:
    """The times at which sampling every 2 s looks, in seconds."""
    return every(clip.duration_s, SAMPLING_S)


def interval_changes(clip: Clip) -> list[Change]:
    """Every change between consecutive sampled frames, in order of time."""
    return [change for interval in language.clip_changes(clip, sampled_times(clip)) for change in interval]


def all_facts(clip: Clip) -> list[tuple[Fact, bool]]:
    """The facts of a clip at 2 s sampling, each with whether it is observable without doubt."""
    first = [(fact, True) for fact in language.first_facts(clip.state_at(0.0), 0.0)]
    return first + [(change.fact, change.observable) for change in interval_changes(clip)]


def truth(clip: Clip) -> dict[str, Any]:
    """The truth file's content; ``clip`` in it is enough to make the clip again."""
    times = sampled_times(clip)
    states = [clip.state_at(t) for t in times]
    captions = []
    for index in range(PARAPHRASES):
        rng = np.random.default_rng([clip.seed, 31, index]) if index else None
        first = language.first_caption(states[0], rng)
        later = [language.differential_caption(c, rng) for c in language.clip_changes(clip, times)]
        timed = list(zip(times, [first, *later], strict=True))
        captions.append(
            {
                "brief": language.brief_caption(states[:: max(1, len(states) // 4)]),
                "fast": language.fast_caption(list(enumerate(text for _, text in timed))),
                "sliding": [{"time_s": t, "caption": text} for t, text in timed],
                "summary": language.summary_caption(timed),
                "recaption": language.summary_caption(timed[:4]),
            }
        )
    return {
        "clip": asdict(clip),
        "sampling_s": SAMPLING_S,
        "facts": [{**asdict(fact), "observable": sure} for fact, sure in all_facts(clip)],
        "captions": captions,
        "questions": [asdict(question) for question in questions_of_clip(clip, clip.seed)],
    }


def write_truth(path: Path, clip: Clip) -> None:
    path.write_text(json.dumps(truth(clip), indent=1), encoding="utf-8")


def read_clip(path: Path) -> Clip:
    """Read back the clip of a truth file."""
    fields = json.loads(path.read_text(encoding="utf-8"))["clip"]
    return Clip(
        seed=fields["seed"],
        duration_s=fields["duration_s"],
        background=fields["background"],
        bodies=tuple(Body(**body) for body in fields["bodies"]),
        motions=tuple(Motion(**motion) for motion in fields["motions"]),
        events=tuple(Event(**event) for event in fields["events"]),
        camera_x=fields["camera_x"],
    )
