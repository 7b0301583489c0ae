"""The words by which a caption tells change, as patterns; see `share4video.captioning.statements`."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The words after which a name only says where or with what its thing is.
_PLACE = re.compile(
    r"in|on|with|at|from|of|near|behind|wearing|holding|to|by|beside|under|over|above|below|inside|into|dressed|"
    r"carrying|sitting|standing|next|along|across|between|among|towards?|for|that"
)
_RIM = re.compile(r"left|right|top|bottom|side|edge|corner|direction|up|down")
_PICTURE = r"(?:the )?(?:frame|screen|image|scene|shot|view|picture)\b"


@dataclass(frozen=True)
class Change:
    """A way of saying that something changes.

    Attributes:
        camera_only: only the camera does this; of others the words mean something else.
        denial: the pattern itself holds the word that elsewhere denies ("no longer visible").
        never_of: subjects of which the words mean something else.
    """

    axis: str
    value: str
    pattern: re.Pattern[str]
    camera_only: bool = False
    denial: bool = False
    never_of: tuple[str, ...] = ()


def words_of_a_name(name: tuple[str, ...]) -> tuple[str, ...]:
    """Return a name without what follows its noun; empty for names of places in the picture."""
    core: list[str] = []
    for word in name:
        if _PLACE.fullmatch(word):
            break
        core.append(word)
    return tuple(core) if core and not _RIM.fullmatch(core[-1]) else ()


_MOVE = (
    r"\b(?:mov(?:e|es|ed|ing)|walk(?:s|ed|ing)?|runs?|ran|running|pan(?:s|ned|ning)?|shift(?:s|ed|ing)?|slid(?:e|es|ing)?|"
    r"drift(?:s|ed|ing)?|roll(?:s|ed|ing)?|fl(?:y|ies|ew|ying)|swing(?:s|ing)?|swung|travel(?:s|l?ed|l?ing)?|"
    r"head(?:s|ed|ing)|step(?:s|ped|ping)|glid(?:e|es|ed|ing)|sweep(?:s|ing)?|swept|rac(?:es|ed|ing)|driv(?:e|es|ing)|"
    r"drove|float(?:s|ed|ing)?|scroll(?:s|ed|ing)?|track(?:s|ed|ing)|go(?:es|ing)?|went|comes?|coming|came|"
    r"sw(?:im|ims|am|imming)|jump(?:s|ed|ing)?|march(?:es|ed|ing)?|advanc(?:es|ed|ing)|crawl(?:s|ed|ing)?|"
    r"rid(?:es|ing)|sail(?:s|ed|ing)?|jog(?:s|ged|ging)?|dash(?:es|ed|ing)|bounc(?:es|ed|ing)|tilt(?:s|ed|ing)?|"
    r"enter(?:s|ed|ing)?|exit(?:s|ed|ing)?)"
)
_TURN = r"\b(?:turn(?:s|ed|ing)?|lean(?:s|ed|ing)?|rotat(?:es|ed|ing)|pivot(?:s|ed|ing)?)"
_MOVE_FREELY = (
    r"\b(?:mov(?:e|es|ed|ing)|shift(?:s|ed|ing)?|slid(?:e|es|ing)|drift(?:s|ed|ing)?|float(?:s|ed|ing)?|"
    r"fl(?:ies|ew|ying)|pan(?:s|ned|ning)?|tilt(?:s|ed|ing)?|scroll(?:s|ed|ing)?|glid(?:es|ed|ing)|"
    r"travel(?:s|l?ed|l?ing)|jump(?:s|ed|ing)?|swing(?:s|ing)|bounc(?:es|ed|ing))"
)
# What may stand between a verb and its direction.
_HOW = (
    r"(?:\s+(?:\w+ly|further|farther|back|more|forwards?|in|off|on|even|just|out|over|a bit|a little|"
    r"diagonally|across(?: the \w+)?|along(?: the \w+)?|through(?: the \w+)?|past(?: the \w+)?|"
    r"(?:(?:out of|into) )?(?:the )?(?:frame|view|scene|shot)|from (?:the )?(?:cent(?:er|re)|middle)))*"
)
_ITS = r"\s+(?P<thing>(?:(?:his|her|its|their|the|a) )(?:\w+ )??\w+?)(?:\s+\w+ly)?"
_NOT_OF_A_THING = (
    rf"(?!\s+of\b(?! {_PICTURE}))(?!\s+(?:side|edge|end|corner|part|half) of (?!{_PICTURE}))"
    r"(?!\s+(?:hand|arm|leg|foot|feet|eye|shoulder|ear|hip|knee|lane|wing|wheel)\b)"
)


def _way(side: str, other: str) -> str:
    """Return a pattern for ``to the left`` and its like."""
    return (
        rf"\s+(?:(?:to|towards?)\s+(?:(?:the|(?P<own>his|her|its|their))\s+)?"
        rf"(?:far |lower |upper |bottom |top |screen |viewer's )?{side}|{side}(?:wards?)?)\b"
        rf"{_NOT_OF_A_THING}(?!\s+(?:and|or|then)\s+(?:to the\s+)?{other}\b)(?!-)"
    )


def _from(side: str, other: str) -> str:
    """Return a pattern for ``from the left`` and ``from left to right``."""
    rim = r"(?: (?:side|edge))?(?: of the (?:frame|screen|image|scene|shot|view))?"
    return rf"\s+(?:in |out )?from (?:the )?{side}{rim}\b(?: to(?:wards?)? (?:the )?{other}\b)?(?! of\b)"


def _sideways() -> list[Change]:
    changes = []
    for side, other in (("left", "right"), ("right", "left")):
        to, source = _way(side, other), _from(other, side)
        changes += [
            Change("horizontal", side, re.compile(f"{_MOVE}{_HOW}{to}", re.IGNORECASE)),
            Change("horizontal", side, re.compile(f"{_MOVE}{_HOW}{source}", re.IGNORECASE)),
            Change("turn", side, re.compile(f"{_TURN}{_HOW}{to}", re.IGNORECASE)),
            Change(
                "horizontal",
                side,
                re.compile(rf"\b(?:mov|slid|push|pull|shift|drag)(?:es|s|ing|ed){_ITS}{to}", re.IGNORECASE),
            ),
            Change("turn", side, re.compile(rf"\bturn(?:s|ing|ed){_ITS}{to}", re.IGNORECASE)),
        ]
    return changes


_PLACED = (
    r"(?!\s+(?:(?:the|an?|this|that|his|her|their|its|one|some) (?!frame|screen|image|scene|shot|view)|"
    r"to (?!reveal|show)|on\b|with\b|and (?:up|down)\b|by\b|close|next|against|for\b|at\b|in\b))"
)


def _upright() -> list[Change]:
    up = (
        rf"{_MOVE_FREELY}{_HOW}\s+up\b{_PLACED}",
        rf"{_MOVE}{_HOW}\s+upwards?\b",
        r"\b(?:rises|rising|rose|ascend(?:s|ed|ing)?)\b(?! (?:and fall|above|over|sun))",
        r"\b(?:rais|lift)(?:es|s|ing|ed)"
        + _ITS
        + r"(?=[.,;]|\s+(?:up|to|in|above|from|into|towards?|and|as|while)\b|$)",
        rf"\btilt(?:s|ing|ed){_ITS}\s+up(?:wards?)?\b",
    )
    down = (
        rf"{_MOVE_FREELY}{_HOW}\s+down\b{_PLACED}",
        rf"{_MOVE}{_HOW}\s+downwards?\b",
        r"\b(?:descend(?:s|ed|ing)?|sinks|sank|sinking)\b",
        r"\bfalls\b(?= (?:to|down|from|off|onto|into|towards?)\b|[.,;]|$)(?! (?:asleep|into place))",
        r"\blower(?:s|ing|ed)"
        + _ITS
        + r"(?=[.,;]|\s+(?:down|to|in|below|from|into|towards?|and|as|while)\b|$)",
        rf"\btilt(?:s|ing|ed){_ITS}\s+down(?:wards?)?\b",
    )
    return [
        Change("vertical", value, re.compile(pattern, re.IGNORECASE))
        for value, patterns in (("up", up), ("down", down))
        for pattern in patterns
    ]


_THING = (
    r"(?P<reference>(?:the|an?|his|her|their|its|another)\s+(?!left\b|right\b)[\w'-]+(?:\s+[\w'-]+){0,2}?)"
)
_THING_ENDS = (
    r"(?=[.,;)]|$|\s+(?:and|as|while|with|in|on|at|from|by|to|near|of|behind|before|then|where|who|which|"
    r"slowly|now|again|along|across|beside|holding|wearing)\b)"
)


def _near() -> list[Change]:
    closer = rf"{_MOVE}{_HOW}\s+(?:towards?|(?:closer|nearer) to)\s+{_THING}{_THING_ENDS}"
    approach = rf"\bapproach(?:es|ed|ing)?\s+{_THING}{_THING_ENDS}"
    away = rf"(?:{_MOVE}|\bback(?:s|ed|ing)?){_HOW}\s+away from\s+{_THING}{_THING_ENDS}"
    distance = [("towards", closer), ("towards", approach), ("away", away)]
    return [Change("distance", value, re.compile(pattern, re.IGNORECASE)) for value, pattern in distance]


def _zooms() -> list[Change]:
    words = {
        "in": (r"\bzoom(?:s|ed|ing)?(?: \w+ly)? in\b", r"\b(?:push(?:es|ing)|doll(?:ies|ying)) in\b"),
        "out": (
            r"\bzoom(?:s|ed|ing)?(?: \w+ly)? out\b",
            r"\b(?:pull(?:s|ed|ing)|doll(?:ies|ying)) (?:back|out|away)\b",
        ),
    }
    nearer = {
        "in": r"\b(?:mov|gett?|com)(?:es|ing|s)(?: \w+ly)? (?:closer|nearer|in)\b",
        "out": r"\b(?:mov(?:es|ing))(?: \w+ly)? (?:back|backwards?|further away|out)\b",
    }
    always = [
        Change("zoom", value, re.compile(pattern, re.IGNORECASE), camera_only="zoom" not in pattern)
        for value, patterns in words.items()
        for pattern in patterns
    ]
    camera = [
        Change("zoom", value, re.compile(pattern, re.IGNORECASE), camera_only=True)
        for value, pattern in nearer.items()
    ]
    return always + camera


_VIEW = r"(?:the )?(?:camera's )?(?:field of )?(?:frame|view|scene|shot|sight|picture|screen)"
_GOES = (
    r"(?:walk|mov|com|go|run|driv|step|slid|drift|fl|float|fad|pass|swim|roll|disappear)"
    r"(?:s|es|ies|ing|ying|ning|ming|ping)?"
)


def _presence() -> list[Change]:
    appears = (
        # Not "appears calm", "appears to be", "appears in a different pose".
        r"\b(?:re)?appear(?:s|ed|ing)?\b(?=[.,;]|$|\s+(?:again|suddenly|briefly|and|as|while|at the|behind|"
        r"next to|beside|from (?:the|behind|below|above|under|off|left|right|out)|"
        r"on (?:the )?(?:screen|left|right|scene|horizon|far)|in (?:the )?(?:frame|view|sight|scene|shot|"
        r"picture|image|background|foreground|distance|cent(?:er|re)|middle|upper|lower|top|bottom|left|"
        r"right))\b)",
        rf"\b{_GOES}(?: \w+ly)? (?:back )?into {_VIEW}\b(?! of the)",
        rf"\benter(?:s|ed|ing)? (?:{_VIEW})\b(?! of the)",
        r"\benter(?:s|ed|ing)?(?= from (?:the )?(?:left|right|top|bottom|side|background))",
        r"\b(?:becomes?|came|comes?|(?:is|are) now)(?: \w+ly)? (?:visible|in view)\b",
        r"\bemerg(?:es|ed|ing)\b",
        r"\bcan now be seen\b",
        rf"\bjoin(?:s|ed)? {_VIEW}\b",
    )
    disappears = (
        r"\b(?:disappear|vanish)(?:s|es|ed|ing)?\b",
        rf"\b(?:leav(?:es|ing)|left|exit(?:s|ed|ing)?) {_VIEW}\b",
        rf"\b{_GOES}(?: \w+ly)? (?:out of|off) {_VIEW}\b",
        r"\b(?:is|are|has|have|was|were) (?:now |completely )?gone\b",
        r"\bfad(?:es|ed|ing) (?:out|away)\b",
    )
    gone = (
        rf"\bno longer (?:visible|present|seen|there|(?:visible |seen |present )?in {_VIEW})\b",
        rf"\b(?:is|are) not (?:visible|in {_VIEW}) any ?more\b",
    )
    changes = [Change("presence", "appears", re.compile(pattern, re.IGNORECASE)) for pattern in appears]
    changes += [Change("presence", "disappears", re.compile(p, re.IGNORECASE)) for p in disappears]
    return changes + [
        Change("presence", "disappears", re.compile(pattern, re.IGNORECASE), denial=True) for pattern in gone
    ]


_FILM = (
    "video",
    "scene",
    "clip",
    "film",
    "footage",
    "frame",
    "shot",
    "sequence",
    "caption",
    "distance",
    "gap",
)
_OPENS_INTO = r"(?! (?:with|up|to|onto|into|in|on|at|out)\b)"


def _openings() -> list[Change]:
    """Return how things open and close; "closed" is mostly how something is, and is left out."""
    words = {
        "opens": (r"\bopen(?:s|ed)", r"\b(?:is|are|begins|starts) opening"),
        "closes": (r"\b(?:closes|shuts)", r"\b(?:is|are|begins|starts) (?:closing|shutting)"),
    }
    changes = []
    for value, verbs in words.items():
        for verb in verbs:
            ends = r"(?=[.,;]|$|\s+(?:and|as|while|with|to|wide|slowly|again|from|in|on|at|for)\b)"
            for pattern in (
                rf"{verb}{_ITS}{ends}",
                rf"{verb}\b(?! (?:his|her|its|their|the|a) ){_OPENS_INTO}",
            ):
                changes.append(Change("opening", value, re.compile(pattern, re.IGNORECASE), never_of=_FILM))
    return changes


def _activities() -> list[Change]:
    to_do = r"\b(?:starts?|begins?|started|began) to (?P<verb>(?!be\b|appear|disappear|open|close)\w+)\b"
    doing = (
        r"\b(?:starts?|begins?|started|began) (?!(?:opening|closing|appearing|shutting)\b)(?P<verb>\w+ing)\b"
    )
    stops = r"\b(?:stops?|stopped|ceases?|finish(?:es|ed)?) (?P<verb>\w+ing)\b"
    pairs = [("starts", to_do), ("starts", doing), ("stops", stops)]
    return [
        Change("activity", value, re.compile(pattern, re.IGNORECASE), never_of=_FILM)
        for value, pattern in pairs
    ]


CHANGES: tuple[Change, ...] = (
    *_presence(),
    *_sideways(),
    *_upright(),
    *_near(),
    *_zooms(),
    *_openings(),
    *_activities(),
)
