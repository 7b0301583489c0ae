"""What a caption quotes, as from a sign, told apart from what it says itself."""

from __future__ import annotations

import re

_LONGEST = 500  # characters; a mark without its fellow quotes nothing
_QUOTED = re.compile(
    "|".join(
        f"{opening}[^{closing}\n]{{0,{_LONGEST}}}{closing}"
        for opening, closing in ('""', "\u201c\u201d", "\u300c\u300d", "\u00ab\u00bb")
    )
)


def without_quotes(text: str) -> str:
    """Return the text without what it quotes: a sign may say anything, in any language."""
    return _QUOTED.sub(" ", text)


def quotes(text: str) -> list[str]:
    """Return what the text quotes, without the marks."""
    return [found.group()[1:-1] for found in _QUOTED.finditer(text)]
