"""What a caption quotes, as from a sign, told apart from what it says itself."""

from __future__ import annotations

import re

_QUOTED = re.compile(r'"[^"\n]*"|\u201c[^\u201d\n]*\u201d|\u300c[^\u300d\n]*\u300d|\u00ab[^\u00bb\n]*\u00bb')


def without_quotes(text: str) -> str:
    """Return the text without what it quotes: a sign may say anything, in any language."""
    return _QUOTED.sub(" ", text)


def quotes(text: str) -> list[str]:
    """Return what the text quotes, without the marks."""
    return [found.group()[1:-1] for found in _QUOTED.finditer(text)]
