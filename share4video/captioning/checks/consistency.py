"""Captions that contradict themselves, the caption before them, or the notes they sum up.

Only what the words themselves say, of subjects with the very same name, and nothing said with a hedge: a
caption that fails is asked for again, so a rule that is often wrong would cost more than it finds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from share4video.captioning.quoted import quotes, without_quotes
from share4video.captioning.statements import INVERSE, Statement, read_statements, same_subject

# With one of these a caption tells a sequence, in which one may well move left and then right.
_SEQUENCE = re.compile(
    r"\b(?:then|before|after\w*|first|second|next|later|again|back|initial\w*|final\w*|eventual\w*|return\w*|"
    r"follow\w*|subsequent\w*|until|once|when|meanwhile|repeated\w*|alternat\w*|revers\w*|both|another|others?|"
    r"turns? around|sway\w*|at \d|between frames?|in image|frame \d|now|earlier|previous\w*|towards the end|"
    r"beginning|start\w*|end\w*|one)\b",
    re.IGNORECASE,
)
# With one of these a thing that was gone may be there again, or it is another one.
_RETURNED = re.compile(
    r"\b(?:return\w*|back|again|re-?appear\w*|re-?enter\w*|re-?emerg\w*|comes?|enters?|still|another|other|new|"
    r"now visible|cuts?|transition\w*|flashback|behind|reveal\w*|visible)\b",
    re.IGNORECASE,
)
_NOT_ONE = re.compile(r"people|person|men|women|children|cars|hands?|crowd|others|group")
_MOVES = ("horizontal", "vertical", "distance", "opening")


def contradicts_itself(text: str) -> bool:
    """Whether one subject is said to change both ways at once, in a caption that tells no sequence."""
    if _SEQUENCE.search(without_quotes(text)):
        return False
    said: dict[tuple[tuple[str, ...], str], str] = {}
    for statement in read_statements(text):
        if not _clear(statement) or statement.axis.startswith("activity"):
            continue
        known = said.setdefault((statement.subject, statement.axis), statement.value)
        if known == INVERSE[statement.value]:
            return True
    return False


def goes_on_after_its_end(text: str, before: str) -> bool:
    """Whether something moves that the caption before said had disappeared, and that nobody says came back.

    Args:
        before: the caption of the key frame before.
    """
    gone = _gone(before)
    if not gone or _RETURNED.search(without_quotes(text)):
        return False
    back: list[tuple[str, ...]] = []
    for statement in read_statements(text):
        name = statement.subject
        if statement.axis == "presence":
            back.append(name)
        elif not _clear(statement) or not statement.axis.startswith(_MOVES):
            continue
        elif name in gone and not any(same_subject(name, other) for other in back):
            return True
    return False


def _gone(caption: str) -> set[tuple[str, ...]]:
    """Return the subjects that a caption leaves as disappeared, the only ones of their name."""
    statements = read_statements(caption)
    plain = without_quotes(caption).casefold()
    gone: set[tuple[str, ...]] = set()
    last = {statement.subject: statement for statement in statements if statement.axis == "presence"}
    for statement in last.values():
        if statement.value != "disappears" or not _clear(statement):
            continue
        later = any(s.subject == statement.subject and s.at > statement.at for s in statements)
        others = re.search(
            rf"\b(?:another|other|second|two|three|more|remaining) .{{0,30}}{statement.head}", plain
        )
        if not later and not others:
            gone.add(statement.subject)
    return gone


def contradicts_notes(summary: str, notes: Sequence[str]) -> bool:
    """Whether in the summary something moves one way that in the notes only ever moves the other way."""
    noted: dict[tuple[tuple[str, ...], str], set[str]] = {}
    for note in notes:
        for statement in read_statements(note):
            noted.setdefault((statement.subject, statement.axis), set()).add(statement.value)
    return any(
        noted.get((statement.subject, statement.axis)) == {INVERSE[statement.value]}
        for statement in read_statements(summary)
        if _clear(statement) and statement.axis in ("horizontal", "vertical", "zoom")
    )


def quotes_nobody(summary: str, notes: Sequence[str]) -> bool:
    """Whether the summary quotes two words or more of which the notes have less than half."""
    known = {word for note in notes for word in _words(note)}
    for quote in quotes(summary):
        words = _words(quote)
        if len(words) > 1 and sum(word in known for word in words) < len(words) / 2:
            return True
    return False


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _clear(statement: Statement) -> bool:
    """Whether a statement is about one thing of its name, without a hedge."""
    return (
        statement.definite
        and not statement.hedged
        and bool(statement.subject)
        and not any(_NOT_ONE.fullmatch(word) for word in statement.subject)
    )
