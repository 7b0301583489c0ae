"""How suspicious the captions of each clip are: one number, and the reasons it is made of.

    2   for each check that a caption of the whole clip failed
    1   for each key frame without a sound difference, or whose caption failed a check
    1   for each point of three that the judge did not give
    1   at most, for a caption that fits its frame badly: how far the clip's lowest frame-text score lies
        below the median of all clips', as a share of how far the lowest of all does; nothing up to a half

The weights are a choice, not a measurement; what they are for is an order in which to look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from share4video.captioning.judge import CRITERIA

_WHOLE, _FRAME, _POINT = 2.0, 1.0, 1.0
_FAR_BELOW = 0.5

Row = Mapping[str, Any]


@dataclass
class Suspicion:
    """Of one clip. ``reasons`` are phrases for a person."""

    score: float = 0.0
    reasons: list[str] = field(default_factory=list)

    def add(self, points: float, reason: str) -> None:
        self.score += points
        self.reasons.append(reason)


def suspicions(
    differentials: Iterable[Row], captions: Iterable[Row], judgements: Iterable[Row] = ()
) -> defaultdict[str, Suspicion]:
    """Return the suspicion of every clip there is one of, by clip; others have none when asked for.

    Args:
        differentials: in order of time.
        captions: of whole clips; the sliding role's are the differentials once more and are not counted.
    """
    found: defaultdict[str, Suspicion] = defaultdict(Suspicion)
    lowest: dict[str, float] = {}
    for row in differentials:
        clip_id, checks = row["clip_id"], ", ".join(_spaced(check) for check in row["checks"])
        if row["fallback"]:
            why = f" ({checks})" if checks else ""
            found[clip_id].add(_FRAME, f"no sound difference at {row['end_s']:.2f} s{why}")
        elif checks:
            found[clip_id].add(_FRAME, f"{checks} at {row['end_s']:.2f} s")
        if (score := row["frame_text_score"]) is not None:
            lowest[clip_id] = min(score, lowest.get(clip_id, score))
    for row in captions:
        for check in row["checks"] if row["role"] != "sliding" else ():
            found[row["clip_id"]].add(_WHOLE, f"{row['role']}: {_spaced(check)}")
    for row in judgements:
        missed = [name for name in CRITERIA if row[name] == 0]
        if missed:
            reason = f"judge, {row['role']}: {', '.join(_spaced(name) for name in missed)}"
            found[row["clip_id"]].add(_POINT * len(missed), reason)
    _add_misfits(found, lowest)
    return found


def _add_misfits(found: defaultdict[str, Suspicion], lowest: Mapping[str, float]) -> None:
    middle = median(lowest.values()) if lowest else 0.0
    depth = middle - min(lowest.values(), default=0.0)
    for clip_id, score in lowest.items():
        share = (middle - score) / depth if depth > 0 else 0.0
        if share > _FAR_BELOW:
            found[clip_id].add(share, f"a frame-text score of {score:.2f}")


def _spaced(code: str) -> str:
    return code.replace("_", " ")
