"""How well a published dataset's captions tell the truth of its synthetic clips, role by role."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict

from share4video.config import BriefConfig
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import read_table
from share4video.evaluation.captions import CaptionScore, ClipFacts, count_facts, score_captions
from share4video.store import Store
from share4video.synthetic.known_facts import KnownFact
from share4video.synthetic.language import (
    MOVED,
    SCENE,
    SURE_MOVED,
    Fact,
    parse,
    parse_brief,
    parse_fast,
    parse_summary,
)
from share4video.synthetic.truth import check_truth_folder, read_clip, read_truth, uniform_times
from share4video.synthetic.world import Clip, Seen

ROLES = ("brief", "sliding", "summary", "fast")

Facts = tuple[Fact, ...]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class KnownFacts:
    """What is true of a clip, by what its captions are held to.

    Attributes:
        observable: sampling shows it without doubt, and it lasts: this is what a score counts.
        doubtful: sampling shows it, but not without doubt.
        short: facts of states shorter than `world.MIN_STATE_S` that this sampling happens to show.
        unseen: facts of such states that it does not show.
    """

    observable: Facts = ()
    doubtful: Facts = ()
    short: Facts = ()
    unseen: Facts = ()

    @classmethod
    def of(cls, known: Iterable[KnownFact]) -> KnownFacts:
        kinds: defaultdict[tuple[bool, bool], list[Fact]] = defaultdict(list)
        for one in known:
            kinds[one.observable, one.short].append(one.fact)
        keys = ((True, False), (False, False), (True, True), (False, True))
        return cls(*(tuple(kinds[key]) for key in keys))

    @property
    def ignored(self) -> Facts:
        """What is neither rewarded nor punished."""
        return (*self.doubtful, *self.short, *self.unseen)


@dataclass(frozen=True)
class JudgedClip(ClipFacts):
    """What was said of a clip and what is true of it; its short states are known apart as well."""

    short: Facts = ()
    unseen: Facts = ()

    @classmethod
    def of(cls, clip_id: str, said: Iterable[Fact], known: KnownFacts) -> JudgedClip:
        return cls(clip_id, tuple(said), known.observable, known.ignored, known.short, known.unseen)


class ShortScore(BaseModel):
    """How well captions tell states that are too short for every sampling to show; no F1 counts them.

    Attributes:
        facts: how many facts of such states there are.
        shown: how many of them sampling happens to show.
        told: how many of those the captions tell.
        recall: told of shown; None where none is shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    facts: int
    shown: int
    told: int
    recall: float | None


class RoleScore(CaptionScore):
    """A role's score; ``short`` is None where the role is not held to single moments."""

    short: ShortScore | None = None


def score_short(clips: Sequence[JudgedClip]) -> ShortScore:
    """Score the short states, whose facts match only what the other facts leave."""
    shown = sum(len(clip.short) for clip in clips)
    told = sum(count_facts(clip.predicted, clip.observable, clip.short).ignored for clip in clips)
    return ShortScore(
        facts=shown + sum(len(clip.unseen) for clip in clips),
        shown=shown,
        told=told,
        recall=told / shown if shown else None,
    )


def score_dataset(store: Store, dataset: StageRef, truth: Path) -> dict[str, RoleScore]:
    """Score every role's captions of the clips whose truth is known; a role nobody wrote is left out.

    Args:
        truth: folder of ``<file stem>.json`` as `clips.write_demo_set` writes them.

    Raises:
        UserError: there is no such folder, or a clip's file in it is no truth.
    """
    check_truth_folder(truth)
    captions: defaultdict[str, dict[str, Row]] = defaultdict(dict)
    for row in read_table(store, dataset, "captions").to_pylist():
        captions[row["clip_id"]][row["role"]] = row
    differentials: defaultdict[str, list[Row]] = defaultdict(list)
    for row in read_table(store, dataset, "differentials").sort_by("index").to_pylist():
        differentials[row["clip_id"]].append(row)
    judged: defaultdict[str, list[JudgedClip]] = defaultdict(list)
    for clip in read_table(store, dataset, "clips").to_pylist():
        file = truth_file(truth, clip)
        if file is None:
            continue
        whole = read_facts(file)
        brief = brief_facts(read_clip(file), brief_times(clip))
        clip_id = clip["clip_id"]
        for role in ROLES:
            said = predicted_facts(role, differentials[clip_id], captions[clip_id].get(role))
            if said is not None:
                judged[role].append(JudgedClip.of(clip_id, said, brief if role == "brief" else whole))
    return {role: _score(role, judged[role]) for role in ROLES if judged[role]}


def _score(role: str, clips: Sequence[JudgedClip]) -> RoleScore:
    score = score_captions(clips)
    return RoleScore(**dict(score), short=None if role == "brief" else score_short(clips))


def truth_file(truth: Path, clip: Row) -> Path | None:
    """Return the truth of a row of table ``clips``, None where its source is no clip of known truth."""
    file = truth / f"{PurePosixPath(clip['source_uri']).stem}.json"
    return file if file.is_file() else None


def predicted_facts(role: str, differentials: Sequence[Row], caption: Row | None) -> list[Fact] | None:
    """Return the facts a role's captions of one clip state, None where the role wrote none.

    Args:
        differentials: the clip's, in order of time; they are the sliding role's captions, and their times
            are those of the key frames the fast role saw.
        caption: the clip's row of table ``captions`` for the role.
    """
    times_s = [row["end_s"] for row in differentials]
    if role == "sliding":
        facts = [fact for row in differentials for fact in parse(row["caption"], row["end_s"])]
        return facts if differentials else None
    if caption is None:
        return None
    text = caption["caption"]
    if role == "brief":
        return parse_brief(text)
    return parse_summary(text) if role == "summary" else parse_fast(text, times_s)


def brief_times(clip: Row, frames: int = BriefConfig().frames) -> list[float]:
    """Return when a brief caption's uniform frames are, in seconds; ``clip`` is a row of table ``clips``."""
    times_s = uniform_times(clip["end_s"] - clip["start_s"], clip["fps"], frames)
    return [clip["start_s"] + time_s for time_s in times_s]


def brief_facts(clip: Clip, times_s: Sequence[float]) -> KnownFacts:
    """Return what the frames at ``times_s`` show of a whole clip.

    In doubt is whether a body moves that is displaced by little: neither answer is rewarded or punished.
    """
    states = [clip.state_at(time_s) for time_s in times_s]
    sure = [Fact(SCENE, "background", states[0].background, 0.0)]
    doubtful: list[Fact] = []
    firsts: dict[int, Seen] = {}
    moved: dict[int, float] = {}
    for seen in (seen for state in states for seen in state.bodies):
        first = firsts.setdefault(seen.body, seen)
        far = max(abs(seen.world_x - first.world_x), abs(seen.y - first.y))
        moved[seen.body] = max(far, moved.get(seen.body, 0.0))
    for body, seen in firsts.items():
        sure.append(Fact(seen.name, "present", "", 0.0))
        if MOVED <= moved[body] < SURE_MOVED:
            doubtful += [Fact(seen.name, manner, "", 0.0) for manner in ("moving", "still")]
        else:
            sure.append(Fact(seen.name, "still" if moved[body] < MOVED else "moving", "", 0.0))
    return KnownFacts(tuple(sure), tuple(doubtful))


def read_facts(file: Path) -> KnownFacts:
    """Return a truth file's facts. Raises UserError where the file is something else."""
    return KnownFacts.of(row.known for row in read_truth(file).facts)
