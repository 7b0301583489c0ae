"""The data card of a published dataset: what is in it, who wrote it with which prompts, what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from share4video.dataset.licences import commercial_use, normalise

Row = Mapping[str, Any]


@dataclass(frozen=True)
class CardFacts:
    """The tables the card describes, as rows.

    Attributes:
        versions: of a dataset that grew, each version and how many clips came with it, oldest first.
        commercial_licences: those the publisher has found to allow commercial use.
    """

    title: str
    clips: Sequence[Row]
    captions: Sequence[Row]
    links: Sequence[Row]
    keyframes_per_clip: Mapping[str, int]
    rejects: Sequence[Row]
    versions: Sequence[tuple[str, int]] = ()
    commercial_licences: Sequence[str] = ()


def data_card(facts: CardFacts) -> str:
    """Return the card as Markdown. Equal facts give equal text."""
    hours = sum(row["duration_s"] for row in facts.clips) / 3600
    sections = [
        ["---", "license: other", "task_categories: [video-text-to-text]", "language: [en]", "---"],
        [f"# {facts.title}"],
        [
            f"{len(facts.clips)} clips, {hours:.2f} hours, {len(facts.captions)} captions."
            " `sharegpt4video.jsonl` holds the differential captions and the summary of every clip in the"
            " form of the released ShareGPT4Video file; the Parquet tables hold all roles."
        ],
        ["## Clips", "", *markdown_table(["", "mean", "10 %", "median", "90 %"], _clip_lines(facts))],
        [
            "## Captions",
            "",
            *markdown_table(["role", "captions", "words: mean", "10 %", "median", "90 %"], _roles(facts)),
        ],
        [
            "## Models and prompts",
            "",
            *markdown_table(
                ["role", "dialect", "prompt version", "model", "captions"], _makers(facts.captions)
            ),
        ],
        ["## Checks that captions failed", "", *_counted(_failed_checks(facts.captions), "check")],
        ["## Sentences of the summaries", "", _linked(facts.links)],
        ["## Left out", "", *_counted((row["reason"] for row in facts.rejects), "reason")],
        [
            "## Licences of the videos",
            "",
            *_licences(facts),
            "",
            "Commercial use is what the licence's name says, or unknown, or as the publisher found; it is no"
            " legal advice. Captions change nothing about the licence of the video they describe. They were"
            " written by models and may be wrong.",
        ],
    ]
    if facts.versions:
        grown = [[name, str(clips)] for name, clips in facts.versions]
        heads = ["version", "clips that came with it"]
        sections.insert(3, ["## Versions", "", *markdown_table(heads, grown)])
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _clip_lines(facts: CardFacts) -> list[list[str]]:
    durations = [row["duration_s"] for row in facts.clips]
    frames = [facts.keyframes_per_clip.get(row["clip_id"], 0) for row in facts.clips]
    return [
        ["seconds", *_spread(durations, 1)],
        ["key frames", *_spread(frames, 1)],
        ["height", *_spread([row["height"] for row in facts.clips], 0)],
    ]


def _roles(facts: CardFacts) -> list[list[str]]:
    words: dict[str, list[int]] = {}
    for row in facts.captions:
        words.setdefault(row["role"], []).append(len(row["caption"].split()))
    return [[role, str(len(counts)), *_spread(counts, 1)] for role, counts in sorted(words.items())]


def _makers(captions: Sequence[Row]) -> list[list[str]]:
    makers = Counter((r["role"], r["dialect"], r["prompt_version"], r["engine"]) for r in captions)
    return [[*maker, str(count)] for maker, count in sorted(makers.items())]


def _licences(facts: CardFacts) -> list[str]:
    counts = Counter(normalise(row["licence"]) for row in facts.clips)
    rows = [
        [name, str(count), commercial_use(name, facts.commercial_licences)]
        for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    return markdown_table(["licence", "clips", "commercial use"], rows) if rows else ["None."]


def _linked(links: Sequence[Row]) -> str:
    unsupported = sum(not row["keyframes"] for row in links)
    return (
        f"{len(links)} sentences, linked by their words to the key frames whose differential captions say the"
        f" same (table `links`). {unsupported} of them rest on no differential caption: they may be made up,"
        " or worded in another way."
    )


def _failed_checks(captions: Sequence[Row]) -> Iterable[str]:
    return (code for row in captions for code in row["checks"])


def _spread(values: Sequence[float], digits: int) -> list[str]:
    """Return mean, 10th percentile, median and 90th percentile as text."""
    if not values:
        return ["-"] * 4
    numbers = [float(np.mean(values)), *(float(p) for p in np.percentile(values, [10, 50, 90]))]
    return [f"{number:.{digits}f}" for number in numbers]


def _counted(items: Iterable[str], heading: str) -> list[str]:
    counts = sorted(Counter(items).items(), key=lambda pair: (-pair[1], pair[0]))
    return (
        markdown_table([heading, "count"], [[name, str(count)] for name, count in counts])
        if counts
        else ["None."]
    )


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines."""
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]
