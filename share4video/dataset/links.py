"""Which differential captions, and so which key frames, each sentence of a summary rests on.

By words alone. The words and word pairs of a sentence are weighed by how few of the clip's differential
captions have them (inverse document frequency, as in TF-IDF and BM25); a differential supports the share of a
sentence's weight that it has, too. A summary tells a clip in order, so among differentials that support a
sentence alike the one that goes on from the sentence before is taken: the path of the greatest support, with
a price on every step back in time. A sentence that says again what was said before is about a later frame, if
there is one to support it. A time that a sentence states counts for the key frame at that time.

A sentence of which no differential supports `FLOOR` rests on nothing that was seen in the frames. It may have
been made up; it may as well be worded in a way that this measure does not see through.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FLOOR = 0.35  # of a sentence's weight
STEP_BACK = 0.15  # what a step back in time costs, in support
STANDSTILL = 0.1  # what it costs to say again of the same frame what was said before
SUPPLEMENT = 0.2  # by how much a further differential must raise the support
STATED_TIME = 0.5  # what the time of a key frame adds to its support, where a sentence states it
_MAX_SENTENCES = 400  # of one summary; what follows is one more sentence

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|\n+")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?")
_STATED_S = re.compile(r"(\d+(?:\.\d+)?)\s*(?:s\b|sec\b|seconds?\b)", re.IGNORECASE)
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been being both but by for from had has have he her his in into is it its of"
        " on or she so than that the their them then there these they this those to was were which while"
        " who with second seconds video frame frames scene clip",
    )
)


@dataclass(frozen=True)
class Seen:
    """A differential caption: of which key frame, at what time in seconds, and what it says."""

    index: int
    time_s: float
    text: str


@dataclass(frozen=True)
class Link:
    """A sentence, and the key frames it rests on in order of time; none where nothing supports it.

    ``score`` is the share of the sentence's weight that they support, from 0 to 1.
    """

    sentence: str
    frames: tuple[Seen, ...]
    score: float


def sentences(text: str) -> list[str]:
    """Split a caption into sentences. A decimal point ends none; an abbreviation before a capital does."""
    found = [piece.strip() for piece in _SENTENCE_END.split(text) if piece.strip()]
    if len(found) <= _MAX_SENTENCES:
        return found
    return [*found[: _MAX_SENTENCES - 1], " ".join(found[_MAX_SENTENCES - 1 :])]


def link(summary: str, seen: Sequence[Seen]) -> list[Link]:
    """Link every sentence of a summary to the differential captions it rests on.

    Args:
        seen: the clip's differential captions, in order of time.
    """
    said = sentences(summary)
    if not seen:
        return [Link(sentence, (), 0.0) for sentence in said]
    grams = [_grams(one.text) for one in seen]
    weights = _weights(grams)
    own = [_grams(_STATED_S.sub(" ", sentence)) for sentence in said]
    support = np.array([[_support(mine, other, weights) for other in grams] for mine in own])
    support = support.reshape(len(said), len(seen))
    sound = [number for number, row in enumerate(support) if row.max() >= FLOOR]
    hinted = support + np.array([_stated(sentence, seen) for sentence in said]).reshape(support.shape)
    hinted[support < FLOOR] -= 1  # what does not support a sentence is not taken for its place in time
    advances = _repeats([own[number] for number in sound])
    chosen = dict(zip(sound, _path(hinted[sound], advances), strict=True))
    links = []
    for number, sentence in enumerate(said):
        if number not in chosen:
            links.append(Link(sentence, (), float(support[number].max())))
            continue
        frames, score = _supplemented(chosen[number], own[number], grams, weights)
        links.append(Link(sentence, tuple(seen[frame] for frame in sorted(frames)), score))
    return links


def _grams(text: str) -> Counter[str]:
    """Return the stems that carry meaning, and the pairs of neighbours among them, with their counts."""
    stems = [_stem(word) for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS]
    return Counter([*stems, *(f"{a} {b}" for a, b in zip(stems, stems[1:], strict=False))])


def _stem(word: str) -> str:
    """Cut off an ending of number or tense: ``moves`` and ``moving`` are both ``mov``."""
    for ending in ("'s", "ing", "ies", "ed", "es", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def _weights(documents: Sequence[Counter[str]]) -> defaultdict[str, float]:
    """Return BM25's inverse document frequency of every stem and pair; of those in none, too."""
    found = Counter(gram for document in documents for gram in document)
    size = len(documents)

    def weight(count: int) -> float:
        return math.log(1 + (size - count + 0.5) / (count + 0.5))

    return defaultdict(lambda: weight(0), {gram: weight(count) for gram, count in found.items()})


def _support(sentence: Iterable[str], other: Counter[str], weights: Mapping[str, float]) -> float:
    """Return the share of a sentence's weight that ``other`` has; words of no differential weigh the most."""
    total = common = 0.0
    for gram in sentence:
        weight = weights[gram] * (0.5 if " " in gram else 1.0)
        total += weight
        common += weight if gram in other else 0.0
    return common / total if total else 0.0


def _stated(sentence: str, seen: Sequence[Seen]) -> list[float]:
    times_s = [float(text) for text in _STATED_S.findall(sentence)]
    return [STATED_TIME if any(abs(t - one.time_s) < 0.051 for t in times_s) else 0.0 for one in seen]


def _repeats(said: Sequence[Counter[str]]) -> list[bool]:
    """Say of each sentence whether it says again what was said since the last that did."""
    found, since = [], list[Counter[str]]()
    for grams in said:
        again = grams in since
        since = [grams] if again else [*since, grams]
        found.append(again)
    return found


def _path(support: npt.NDArray[np.float64], advances: Sequence[bool]) -> list[int]:
    """Return the differential of each sentence on the path of the greatest support.

    Args:
        support: [sentences, differentials].
        advances: whether it is likely that a sentence is about a later differential than the one before.
    """
    if not len(support):
        return []
    size = support.shape[1]
    back = STEP_BACK * (np.arange(size)[:, None] > np.arange(size)[None, :])  # [before, now]
    still = STANDSTILL * np.eye(size)
    best, came = support[0], []
    for row, advance in zip(support[1:], advances[1:], strict=True):
        ways = best[:, None] - back - (still if advance else 0.0)
        came.append(ways.argmax(axis=0))
        best = ways.max(axis=0) + row
    path = [int(best.argmax())]
    for before in reversed(came):
        path.append(int(before[path[-1]]))
    return path[::-1]


def _supplemented(
    first: int, sentence: Counter[str], grams: Sequence[Counter[str]], weights: Mapping[str, float]
) -> tuple[list[int], float]:
    """Add differentials that say what the chosen ones do not; return all, and what they support together."""
    frames, together = [first], grams[first]
    score = _support(sentence, together, weights)
    while True:
        raised = [_support(sentence, together | other, weights) for other in grams]
        further = int(np.argmax(raised))
        if raised[further] < score + SUPPLEMENT:
            return frames, score
        frames.append(further)
        together, score = together | grams[further], raised[further]
