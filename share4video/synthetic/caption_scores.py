"""How well a published dataset's captions tell the truth of its synthetic clips, role by role."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from share4video.config import BriefConfig
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import read_table
from share4video.evaluation.captions import CaptionScore, ClipFacts, score_captions
from share4video.media.sampling import uniform_indices
from share4video.store import Store
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
from share4video.synthetic.truth import read_clip
from share4video.synthetic.world import Clip, Seen

ROLES = ("brief", "sliding", "summary", "fast")

Facts = tuple[Fact, ...]

Row = Mapping[str, Any]


def score_dataset(store: Store, dataset: StageRef, truth: Path) -> dict[str, CaptionScore]:
    """Score every role's captions of the clips whose truth is known; a role nobody wrote is left out.

    Args:
        truth: folder of ``<file stem>.json`` as `clips.write_demo_set` writes them.
    """
    captions: defaultdict[str, dict[str, Row]] = defaultdict(dict)
    for row in read_table(store, dataset, "captions").to_pylist():
        captions[row["clip_id"]][row["role"]] = row
    differentials: defaultdict[str, list[Row]] = defaultdict(list)
    for row in read_table(store, dataset, "differentials").sort_by("index").to_pylist():
        differentials[row["clip_id"]].append(row)
    judged: defaultdict[str, list[ClipFacts]] = defaultdict(list)
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
                observable, unobservable = brief if role == "brief" else whole
                judged[role].append(ClipFacts(clip_id, tuple(said), observable, unobservable))
    return {role: score_captions(judged[role]) for role in ROLES if judged[role]}


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
    count = max(1, round((clip["end_s"] - clip["start_s"]) * clip["fps"]))
    return [clip["start_s"] + index / clip["fps"] for index in uniform_indices(count, frames)]


def brief_facts(clip: Clip, times_s: Sequence[float]) -> tuple[Facts, Facts]:
    """Return what the frames at ``times_s`` show of a whole clip: without doubt, and in doubt.

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
    return tuple(sure), tuple(doubtful)


def read_facts(file: Path) -> tuple[Facts, Facts]:
    """Return a truth file's facts: those sampling shows without doubt, and the others."""
    facts = json.loads(file.read_text(encoding="utf-8"))["facts"]
    kinds: dict[bool, list[Fact]] = {True: [], False: []}
    for entry in facts:
        kinds[entry.pop("observable")].append(Fact(**entry))
    return tuple(kinds[True]), tuple(kinds[False])
