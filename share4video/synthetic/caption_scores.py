"""How well a published dataset's captions tell the truth of its synthetic clips, role by role."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import read_table
from share4video.evaluation.captions import CaptionScore, ClipFacts, score_captions
from share4video.store import Store
from share4video.synthetic.language import Fact, parse, parse_fast, parse_summary

ROLES = ("sliding", "summary", "fast")

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
        file = truth / f"{PurePosixPath(clip['source_uri']).stem}.json"
        if not file.is_file():
            continue
        observable, unobservable = read_facts(file)
        clip_id = clip["clip_id"]
        for role in ROLES:
            said = predicted_facts(role, differentials[clip_id], captions[clip_id].get(role))
            if said is not None:
                judged[role].append(ClipFacts(clip_id, tuple(said), observable, unobservable))
    return {role: score_captions(judged[role]) for role in ROLES if judged[role]}


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
    return parse_summary(caption["caption"]) if role == "summary" else parse_fast(caption["caption"], times_s)


def read_facts(file: Path) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """Return a truth file's facts: those sampling shows without doubt, and the others."""
    facts = json.loads(file.read_text(encoding="utf-8"))["facts"]
    kinds: dict[bool, list[Fact]] = {True: [], False: []}
    for entry in facts:
        kinds[entry.pop("observable")].append(Fact(**entry))
    return tuple(kinds[True]), tuple(kinds[False])
