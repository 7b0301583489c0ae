"""The truth beside a synthetic clip, as JSON: what happens when, and what of it sampling can observe."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from share4video.config import BriefConfig
from share4video.errors import UserError
from share4video.media.sampling import uniform_indices
from share4video.synthetic import language
from share4video.synthetic.happenings import happenings
from share4video.synthetic.known_facts import KnownFact, known_facts, sampled_times
from share4video.synthetic.language import Fact
from share4video.synthetic.questions import SAMPLING_S, questions_of_clip
from share4video.synthetic.whole_file import whole_file
from share4video.synthetic.world import FPS, Clip

PARAPHRASES = 3


class TruthRow(BaseModel):
    """A fact as the truth file holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    object: str
    predicate: str
    value: str
    time_s: float
    observable: bool
    short: bool

    @property
    def known(self) -> KnownFact:
        fact = Fact(self.object, self.predicate, self.value, self.time_s)
        return KnownFact(fact, self.observable, self.short)


class TruthFile(BaseModel):
    """What is read of a truth file; the rest of it is for people and other programs."""

    clip: Clip
    facts: tuple[TruthRow, ...]


def uniform_times(duration_s: float, fps: float = FPS, frames: int = BriefConfig().frames) -> list[float]:
    """The times of the uniform frames a brief caption is of, in seconds from the clip's start."""
    count = max(1, round(duration_s * fps))
    return [index / fps for index in uniform_indices(count, frames)]


def truth(clip: Clip) -> dict[str, Any]:
    """The truth file's content; ``clip`` in it is enough to make the clip again."""
    times = sampled_times(clip)
    states = [clip.state_at(t) for t in times]
    uniform = [clip.state_at(t) for t in uniform_times(clip.duration_s)]
    captions = []
    for index in range(PARAPHRASES):
        rng = np.random.default_rng([clip.seed, 31, index]) if index else None
        first = language.first_caption(states[0], rng)
        later = [language.differential_caption(c, rng) for c in language.clip_changes(clip, times)]
        timed = list(zip(times, [first, *later], strict=True))
        captions.append(
            {
                "brief": language.brief_caption(uniform, rng),
                "fast": language.fast_caption(list(enumerate(text for _, text in timed))),
                "sliding": [{"time_s": t, "caption": text} for t, text in timed],
                "summary": language.summary_caption(timed),
                "recaption": language.summary_caption(timed[:4]),
            }
        )
    return {
        "clip": asdict(clip),
        "sampling_s": SAMPLING_S,
        "facts": [
            {**asdict(known.fact), "observable": known.observable, "short": known.short}
            for known in known_facts(clip)
        ],
        "events": [asdict(happening) for happening in happenings(clip)],
        "captions": captions,
        "questions": [asdict(question) for question in questions_of_clip(clip, clip.seed)],
    }


def write_truth(path: Path, clip: Clip) -> None:
    """Write the truth file, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(truth(clip), indent=1), encoding="utf-8")


def read_truth(path: Path) -> TruthFile:
    """Read a truth file.

    Raises:
        UserError: the file is something else, or was written by another version.
    """
    try:
        return TruthFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        what = f"{first['msg']} at {where}" if where else first["msg"]
    except OSError as error:
        what = f"it cannot be read, {error.strerror}"
    raise UserError(
        f"this file is not the truth of a synthetic clip as this version writes it: {what}",
        where=str(path),
        fix="name the folder of truth that was written with the clips, or write the clips again",
    )


def read_clip(path: Path) -> Clip:
    """Read back the clip of a truth file. Raises UserError as `read_truth` does."""
    return read_truth(path).clip


def check_truth_folder(folder: Path) -> None:
    """Refuse a folder of truth that is not there: without truth a report would silently say less.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            "there is no folder of the clips' truth here",
            where=str(folder),
            fix="name the folder truth that was written with the clips",
        )
