"""Short generation prompts with the dense captions they were made of: what re-captioning is trained on.

The released captioner's fourth role was trained on such pairs, the short prompt in and the dense caption out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_COLUMNS = ["clip_id", "start_s", "end_s", "role", "dialect", "prompt_version", "engine", "caption", "checks"]

_Span = tuple[str, float, float]


@dataclass(frozen=True)
class PromptPair:
    """A short prompt, and the dense caption of the span of a clip it asks for."""

    clip_id: str
    start_s: float
    end_s: float
    short: str
    dense: str


@dataclass(frozen=True)
class PromptPairs:
    """All pairs, in order of clip and time, and why the other spans that have a summary gave none.

    Attributes:
        without_prompt: spans nobody wrote a prompt for.
        flagged: spans whose prompt or summary failed its checks.
    """

    pairs: tuple[PromptPair, ...]
    without_prompt: int
    flagged: int


def prompt_pairs(captions: pa.Table) -> PromptPairs:
    """Pair each ``prompt`` of table ``captions`` with the ``summary`` of its clip and span.

    Where several engines or prompts wrote one, a sound one is taken, the first by name.
    """
    wanted = captions.select(_COLUMNS).filter(pc.is_in(captions["role"], pa.array(["prompt", "summary"])))
    found: dict[str, dict[_Span, list[dict[str, Any]]]] = {
        "prompt": defaultdict(list),
        "summary": defaultdict(list),
    }
    for row in wanted.to_pylist():
        found[row["role"]][row["clip_id"], row["start_s"], row["end_s"]].append(row)
    pairs, without_prompt = [], 0
    for span, summaries in sorted(found["summary"].items()):
        if span not in found["prompt"]:
            without_prompt += 1
            continue
        short, dense = _best(found["prompt"][span]), _best(summaries)
        if not (short["checks"] or dense["checks"]):
            pairs.append(PromptPair(*span, short["caption"], dense["caption"]))
    flagged = len(found["summary"]) - without_prompt - len(pairs)
    return PromptPairs(tuple(pairs), without_prompt, flagged)


def _best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return min(
        rows,
        key=lambda row: (
            bool(row["checks"]),
            row["dialect"],
            row["prompt_version"],
            row["engine"],
            row["caption"],
        ),
    )
