"""From what the captioning stages say of a clip to the rows and lines of the published dataset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from share4video.dataset.links import Seen, link
from share4video.dataset.manifest import Manifest
from share4video.dataset.schema import CAPTIONS

_ROLE_ORDER = ("brief", "sliding", "part_summary", "summary", "fast", "recaption", "prompt", "structured")

Row = Mapping[str, Any]


def by_clip(rows: Iterable[dict[str, Any]]) -> defaultdict[str, list[dict[str, Any]]]:
    grouped: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[row["clip_id"]].append(row)
    return grouped


def in_order(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["index"])


def caption_order(row: Row) -> tuple[Any, ...]:
    role = row["role"]
    place = _ROLE_ORDER.index(role) if role in _ROLE_ORDER else len(_ROLE_ORDER)
    return place, role, row["start_s"], row["end_s"], row["dialect"], row["prompt_version"], row["engine"]


def summary_of(captions: Iterable[Row]) -> Row | None:
    """Return a clip's first summary; None where it has none."""
    return min((row for row in captions if row["role"] == "summary"), key=caption_order, default=None)


def sliding_caption(row: Row) -> dict[str, Any]:
    """Return a differential caption as a row of table ``captions``."""
    own = {name: row[name] for name in CAPTIONS.names if name in row}
    fallback = ["fallback"] if row["fallback"] else []
    return {**own, "role": "sliding", "checks": [*fallback, *row["checks"]]}


def brief_caption(clip: Row, caption: str, manifest: Manifest) -> dict[str, Any]:
    """Return a brief caption as a row of table ``captions``.

    The brief table holds the caption alone; who wrote it is part of that stage's identity. A version of the
    prompts is its dialect and a number.
    """
    prompts = str(manifest.config["@prompts"])
    return {
        "clip_id": clip["clip_id"],
        "start_s": clip["start_s"],
        "end_s": clip["end_s"],
        "role": "brief",
        "engine": str(manifest.config["@engine"]),
        "dialect": prompts.rpartition("-")[0],
        "prompt_version": prompts,
        "caption": caption,
        "prompt_tokens": 0,  # the brief table counts none
        "tokens": 0,
        "attempt": 0,
        "checks": [],
    }


def link_rows(clip_id: str, summary: str, sliding: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the clip's rows of table ``links``; ``sliding`` are its differentials in order of time."""
    seen = [Seen(row["index"], row["end_s"], row["caption"]) for row in sliding]
    return [
        {
            "clip_id": clip_id,
            "sentence_index": number,
            "sentence": found.sentence,
            "keyframes": [frame.index for frame in found.frames],
            "timestamps_s": [frame.time_s for frame in found.frames],
            "score": found.score,
        }
        for number, found in enumerate(link(summary, seen))
    ]
