"""What a caption says of change: who moves which way, appears, opens, starts; read with a small lexicon.

A reader of few words that is seldom wrong, not a parser: what it does not know it leaves out. Every value has
an inverse, what the same happening is called when time runs backwards. A statement that is denied ("does not
move to the left", "no new person appears") is none. Left and right after a place ("the cup to the left of the
plate") are no directions, and a thing that "appears calm" does not appear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from share4video.captioning.lexicon import CHANGES, Change, words_of_a_name
from share4video.captioning.quoted import without_quotes

_PAIRS = (
    ("left", "right"),
    ("up", "down"),
    ("towards", "away"),
    ("in", "out"),
    ("appears", "disappears"),
    ("opens", "closes"),
    ("starts", "stops"),
)
INVERSE = {word: other for pair in _PAIRS for word, other in (pair, pair[::-1])}

_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_CLAUSE = re.compile(
    r"[,:;()]|\s-\s|\u2014|\b(?:and|while|as|but|then|before|after|when|until|where|because|so|with|though|whereas)\b",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"\b(?:not|no|nothing|none|nobody|never|neither|nor|without|hardly|rather than|instead of|fails to|"
    r"no longer)\b|n't\b",
    re.IGNORECASE,
)
_UNREAL = re.compile(
    r"\b(?:would|could|might|may|should|will|about to|as if|if|ready to|prepar\w+ to|try\w* to|tries to|"
    r"intend\w* to|wants? to|suggest\w*|impl\w+|indicat\w+)\b",
    re.IGNORECASE,
)
_HEDGED = re.compile(
    r"\b(?:appears? to|seems? to|begins?|began|beginning|starts?|started|partial\w*|partly|almost|nearly|"
    r"mostly|half|possibly|perhaps|likely|slightly out)\b",
    re.IGNORECASE,
)
_LEADING = re.compile(
    r"^(?:(?:then|now|next|finally|also|still|suddenly|meanwhile|here|overall|initially|both|all of|"
    r"at this point)\s+)+",
    re.IGNORECASE,
)
# What stands between a name and its verb.
_TRAILING = re.compile(
    r"(?:\s+(?:is|are|was|were|has|have|had|been|be|being|begins?|began|starts?|started|continues?|continued|"
    r"appears?|seems?|proceeds?|to|now|then|also|still|just|again|suddenly|briefly|soon|both|all|can|slightly|"
    r"partially|further|keeps?|\w+ly))+$",
    re.IGNORECASE,
)
_DETERMINER = re.compile(
    r"^(?:the|an?|his|her|their|its|this|that|these|those|another|one|two|three|some|several|both|more)\s+",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"^(?:he|she|it|they|who|which|that|this|there|we|you|i|one)$", re.IGNORECASE)
_VERB_INSIDE = re.compile(r"\b(?:is|are|was|were|has|have|who|which|there)\b", re.IGNORECASE)
_MAX_NAME_WORDS = 8
_MAX_CHARACTERS, _MAX_SENTENCE = 20_000, 1000
_OWNERS = frozenset(("his", "her", "their", "its"))


@dataclass(frozen=True)
class Statement:
    """``subject`` changes along ``axis`` the way ``value`` says.

    Attributes:
        subject: the words of its name without articles, lower case; empty where it is not clear.
        axis: horizontal, vertical, turn, zoom, presence, opening; with what it is measured by after a colon:
            ``distance:table``, ``activity:danc``.
        value: one of `INVERSE`.
        definite: the name has ``the`` before it, or it is the camera.
        hedged: said with less than certainty, of a part only, or seen from the subject ("to his left").
        at: where in the text.
    """

    subject: tuple[str, ...]
    axis: str
    value: str
    definite: bool
    hedged: bool
    at: int

    @property
    def head(self) -> str:
        """The word the name turns on: ``man`` of ``man in a red shirt``."""
        return head_of(self.subject)


def head_of(subject: tuple[str, ...]) -> str:
    """Return the word a name turns on, empty for no name."""
    core = words_of_a_name(subject)
    return core[-1] if core else ""


def same_subject(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two names may be of one thing: the same head, and what one adds the other only leaves out."""
    head = head_of(one)
    smaller, larger = sorted((set(one) - _OWNERS, set(other) - _OWNERS), key=len)
    return bool(head) and head == head_of(other) and smaller <= larger


@lru_cache(maxsize=1024)  # a caption is held against its neighbours and its summary
def read_statements(caption: str) -> tuple[Statement, ...]:
    """Return what a caption says of change, in the order of the text; of a very long one the beginning."""
    text = without_quotes(caption[:_MAX_CHARACTERS]).replace("\u2019", "'")
    found: list[Statement] = []
    start = 0
    for sentence in _SENTENCE.split(text):
        at = text.find(sentence, start)
        start = at + len(sentence)
        found += _of_sentence(sentence[:_MAX_SENTENCE], at)
    return tuple(found)


def _of_sentence(sentence: str, at: int) -> Iterator[Statement]:
    taken: list[tuple[str, int, int]] = []
    matches = sorted(
        ((match, change) for change in CHANGES for match in change.pattern.finditer(sentence)),
        key=lambda item: (item[0].start(), -item[0].end()),
    )
    subject: tuple[str, ...] = ()
    definite = False
    for match, change in matches:
        if any(change.axis == a and match.start() < end and start < match.end() for a, start, end in taken):
            continue
        taken.append((change.axis, *match.span()))
        before = sentence[: match.start()]
        boundaries = [clause.end() for clause in _CLAUSE.finditer(before)]
        clause = before[boundaries[-1] if boundaries else 0 :]
        around = clause + match.group()
        if (_DENIED.search(around) and not change.denial) or _UNREAL.search(clause):
            continue
        named = _subject(clause)
        if named is not None:
            subject, definite = named
        statement = _statement(match, change, subject, definite, clause, at)
        if statement is not None:
            yield statement


def _statement(
    match: re.Match[str], change: Change, subject: tuple[str, ...], definite: bool, clause: str, at: int
) -> Statement | None:
    groups = match.groupdict()
    if thing := groups.get("thing"):  # what is moved or opened, by whoever it is
        subject, definite = _plain(thing.casefold()), True
    axis = change.axis
    if reference := groups.get("reference"):
        words = words_of_a_name(tuple(_DETERMINER.sub("", reference.casefold()).split()))
        if not words:
            return None
        axis = f"{axis}:{'camera' if words[-1] in ('viewer', 'lens') else words[-1]}"
    if verb := groups.get("verb"):
        axis = f"{axis}:{_stem(verb.casefold())}"
    if change.camera_only and "camera" not in subject:
        return None
    if change.never_of and set(change.never_of) & set(subject):
        return None
    hedged = bool(_HEDGED.search(clause)) or bool(groups.get("own"))
    return Statement(subject, axis, change.value, definite, hedged, at + match.start())


def _subject(clause: str) -> tuple[tuple[str, ...], bool] | None:
    """Return the name a clause begins with, and whether it is definite; None where it has none of its own."""
    words = " " + _LEADING.sub("", clause.strip())
    words = _TRAILING.sub("", words).strip()
    if not words:
        return None
    if words.casefold().split()[-1:] == ["camera"] or words.casefold() in ("camera", "the view"):
        return ("camera",), True
    determiner = _DETERMINER.match(words)
    name = _DETERMINER.sub("", words).casefold()
    unclear = determiner is None or _PRONOUN.match(name) or _VERB_INSIDE.search(name)
    if unclear or not 0 < len(name.split()) <= _MAX_NAME_WORDS:
        return (), False
    first = words.split()[0].casefold()
    plain = _plain(name)
    kept = (first, *plain) if first in _OWNERS or first in ("another", "two", "three") else plain
    return kept, first == "the"


def _plain(name: str) -> tuple[str, ...]:
    """Return the words of a name without articles."""
    return tuple(word for word in re.findall(r"[\w'-]+", name) if word not in ("the", "a", "an"))


def _stem(verb: str) -> str:
    """Return what forms of a verb have in common: ``danc`` of dance and dancing."""
    base = re.sub(r"(?:ing|ed|s)$", "", verb)
    if len(base) > 3 and base[-1] == base[-2] and base[-1] not in "ls":
        base = base[:-1]
    return base.removesuffix("e")
