"""The README of a dataset on the Hugging Face hub: its header, and what is counted in passing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import yaml

from share4video.dataset.card import markdown_table
from share4video.dataset.licences import normalise
from share4video.dataset.published import ClipSample

# Licences the hub has a tag for; everything else, and a mixture, is "other".
_TAGS = frozenset(
    f"cc-{terms}-{version}"
    for terms in ("by", "by-sa", "by-nc", "by-nd", "by-nc-sa", "by-nc-nd")
    for version in ("2.0", "3.0", "4.0")
) | {"cc0-1.0", "mit", "apache-2.0", "unknown"}
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)


class CardTally:
    """Counts clips as they are written, so that the card needs none of them at the end."""

    def __init__(self) -> None:
        self._clips = 0
        self._seconds = 0.0
        self._licences: Counter[str] = Counter()
        self._sources: Counter[tuple[str, str]] = Counter()
        self._makers: Counter[tuple[str, str, str, str]] = Counter()
        self._words: Counter[str] = Counter()
        self._captions: Counter[str] = Counter()
        self._checks: Counter[str] = Counter()

    def add(self, samples: Sequence[ClipSample]) -> None:
        for sample in samples:
            clip, licence = sample.clip, normalise(sample.clip["licence"])
            self._clips += 1
            self._seconds += clip["duration_s"]
            self._licences[licence] += 1
            folder = clip["source_uri"].partition("/")[0] if "/" in clip["source_uri"] else "-"
            self._sources[folder, licence] += 1
            for row in sample.captions:
                self._makers[row["role"], row["dialect"], row["prompt_version"], row["engine"]] += 1
                self._captions[row["role"]] += 1
                self._words[row["role"]] += len(row["caption"].split())
                self._checks.update(row["checks"])

    def card(self, title: str) -> str:
        """Return the card as Markdown with the hub's YAML header. Equal clips give equal text."""
        hours = self._seconds / 3600
        roles = [
            [role, str(count), f"{self._words[role] / count:.1f}"]
            for role, count in sorted(self._captions.items())
        ]
        sources = [[*names, str(count)] for names, count in sorted(self._sources.items())]
        makers = [[*names, str(count)] for names, count in sorted(self._makers.items())]
        checks = [[code, str(count)] for code, count in sorted(self._checks.items())]
        sections = [
            f"---\n{self._header(title)}---",
            f"# {title}",
            f"{self._clips} clips, {hours:.2f} hours, {self._captions.total()} captions. A row is a clip:"
            " `summary` describes all of it, `differentials` say what each key frame shows that the one"
            " before it did not, `captions` holds the captions of every role. Times are seconds of the"
            " source file; a duration or size of 0 is not known. The videos are not part of this dataset.",
            "## Captions",
            _table(["role", "captions", "words: mean"], roles),
            "## Models and prompts",
            _table(["role", "dialect", "prompt version", "model", "captions"], makers),
            "## Checks that captions failed",
            _table(["check", "count"], checks),
            "## Sources and licences of the videos",
            _table(["source", "licence", "clips"], sources),
            "Captions change nothing about the licence of the video they describe. They were written by"
            " models and may be wrong.",
        ]
        return "\n\n".join(sections) + "\n"

    def _header(self, title: str) -> str:
        names = {name.lower() for name in self._licences}
        (name,) = names if len(names) == 1 else ("other",)
        fields = {
            "pretty_name": title,
            "license": name if name in _TAGS else "other",
            "language": ["en"],
            "task_categories": ["video-text-to-text"],
            "size_categories": [next((tag for most, tag in _SIZES if self._clips < most), "100M<n<1B")],
            "configs": [
                {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
            ],
        }
        return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(markdown_table(heads, rows)) if rows else "None."
