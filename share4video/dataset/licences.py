"""Licences of videos: one name for each however it was written, and whether it allows commercial use.

What is said here is no legal advice. That a Creative Commons licence is non-commercial stands in its name;
of the collections behind ShareGPT4Video the release says no more than the table below repeats, and what it
does not say is unknown. Unknown counts as no. A user who has read a licence can name it as one that allows
commercial use (``commercial_licences``).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

Commercial = Literal["yes", "no", "unknown"]

# By name: whether commercial use is allowed, and other ways to write it.
_KNOWN: dict[str, tuple[Commercial, tuple[str, ...]]] = {
    "CC0-1.0": ("yes", ("cc0", "cc zero", "creative commons zero", "publicdomain/zero/1.0")),
    "CC-PDDC": ("yes", ("public domain", "public domain mark", "pdm", "publicdomain/mark/1.0")),
    "MIT": ("yes", ("mit license", "mit licence")),
    "Apache-2.0": ("yes", ("apache 2", "apache license 2.0")),
    "synthetic": ("yes", ()),  # drawn by this package
    "Pexels": ("unknown", ("pexels license", "pexels.com/license")),
    "Pixabay": ("unknown", ("pixabay license", "pixabay content license")),
    "Mixkit": (
        "unknown",
        ("mixkit license", "mixit", "mixkit free license", "mixkit stock video free license"),
    ),
    "Panda-70M": ("no", ("panda", "panda70m", "snap", "snap non-commercial research")),
    "YouTube": ("unknown", ("youtube license", "standard youtube license")),
    "HD-VILA": ("unknown", ("hd-vila-100m", "hdvila")),
    "Ego4D": ("unknown", ("ego4d license",)),
    "BDD100K": ("unknown", ("bdd", "bdd100k license")),
    "unknown": ("unknown", ("", "none", "other", "n/a", "noassertion")),
}
_CREATIVE_COMMONS = re.compile(
    r"(?:cc|creative ?commons|licenses)[ /_-]*(?P<parts>by(?:[ _-]?(?:nc|sa|nd))*)"
    r"[ /_-]*v?(?P<version>\d(?:\.\d)?)?"
)
_URL = re.compile(r"^https?://(?:www\.)?|/(?:legalcode|deed)?(?:\.\w+)?$")


def _folded(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower().replace("licence", "license")).strip()


_NAMES = {_folded(way): name for name, (_, ways) in _KNOWN.items() for way in (name, *ways)}


def normalise(text: str) -> str:
    """Return the licence's SPDX id, its collection's name, or the text itself where it is none known here.

    A Creative Commons licence without a version is taken as 4.0.
    """
    plain = _URL.sub("", " ".join(text.split()).lower()).removeprefix("creativecommons.org/")
    known = _NAMES.get(_folded(plain))
    if known is not None:
        return known
    match = _CREATIVE_COMMONS.fullmatch(plain)
    if match is None:
        return " ".join(text.split())
    parts = re.findall("by|nc|sa|nd", match["parts"])
    version = match["version"] or "4.0"
    return "-".join(["CC", *(part.upper() for part in parts), version if "." in version else f"{version}.0"])


def commercial_use(licence: str, allowed: Collection[str] = ()) -> Commercial:
    """Say whether a licence, however it is written, allows commercial use.

    Args:
        allowed: licences that the caller has found to allow it.
    """
    name = normalise(licence)
    if name in {normalise(own) for own in allowed}:
        return "yes"
    if name in _KNOWN:
        return _KNOWN[name][0]
    if name.startswith("CC-BY"):
        return "no" if "-NC" in name else "yes"
    return "unknown"
