"""Captions of a video that wait to be summed up, within the tokens one prompt may have. No I/O.

What fits into one prompt is summed up at once. Above that the captions are cut into consecutive parts, each
part is summed up with its span of time, and the parts' summaries, which are such captions themselves, are
summed up again, level by level. Only what is not summed up yet is held, so that a video may go on for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from share4video.captioning.role_inputs import TimedCaption

# What a prompt has beside the captions (a dialect's blocks, a span's times), and a line beside its caption.
PROMPT_TOKENS, LINE_TOKENS = 512, 64
_LETTERS_PER_TOKEN = 3
_CUT_MARK = " ..."


def estimated_tokens(text: str) -> int:
    """Return a number of tokens that prose does not exceed, whatever the engine's tokenizer.

    Three ASCII letters or spaces make a token (English has four to five), a digit or a mark is one, and
    anything else as many as it has bytes, which is what a tokenizer falls back to.
    """
    letters = sum(map(_is_letter, text))
    marks = sum(character.isascii() for character in text) - letters
    return -(-letters // _LETTERS_PER_TOKEN) + marks + len(text.encode("utf-8", "replace")) - letters - marks


@dataclass(frozen=True)
class Part:
    """Captions to be summed up as one.

    Attributes:
        level: 1 for a part of the key frames' captions, 2 for a part of such parts' summaries, and so on.
        number: of the part in its level, from 0.
    """

    level: int
    number: int
    start_s: float
    end_s: float
    captions: tuple[TimedCaption, ...]


@dataclass(frozen=True)
class _Line:
    caption: TimedCaption
    start_s: float
    anchor: bool
    tokens: int


class Notes:
    """Captions in order of time, summed up part by part.

    Add a caption only while `due` is None; else take the summary of that part first.

    Args:
        budget_tokens: of one prompt, as `estimated_tokens` counts; None is no bound.
        every_anchor: sum up every stretch from one anchor to the next, whether or not there is room.

    Attributes:
        shortened: captions that alone would have taken more than half of a prompt, and were cut to it.
    """

    def __init__(self, budget_tokens: int | None, *, every_anchor: bool = False) -> None:
        self._room = math.inf if budget_tokens is None else budget_tokens - PROMPT_TOKENS
        if self._room < 4 * LINE_TOKENS:
            raise ValueError(f"no two captions fit into a prompt of {budget_tokens} tokens")
        self._every_anchor = every_anchor
        self._levels: list[list[_Line]] = [[]]
        self._parts: list[int] = [0]
        self.shortened = 0

    def add(self, caption: TimedCaption, *, start_s: float | None = None, anchor: bool = False) -> None:
        """Add the next caption.

        Args:
            start_s: where what it tells begins; None: at its own time.
            anchor: it is a full one, before which a part may end.
        """
        self._add(0, caption, caption.timestamp_s if start_s is None else start_s, anchor)

    def due(self, *, ended: bool = False) -> Part | None:
        """Return what is to be summed up next, None where nothing is yet.

        A caption that would be a part of its own goes up a level as it is.

        Args:
            ended: no caption will be added, so what is left of the lower levels is summed up, too.
        """
        while (found := self._next(ended)) is not None:
            level, count = found
            lines = self._levels[level][:count]
            start_s, end_s = lines[0].start_s, lines[-1].caption.timestamp_s
            if count > 1:
                captions = tuple(line.caption for line in lines)
                return Part(level + 1, self._parts[level], start_s, end_s, captions)
            del self._levels[level][0]
            self._add(level + 1, lines[0].caption, start_s)
        return None

    def _next(self, ended: bool) -> tuple[int, int] | None:
        """Return how many lines of which level are next; a higher level must have room for them."""
        for level in reversed(range(len(self._levels))):
            if count := self._cut(level):
                return level, count
        for level, lines in enumerate(self._levels):
            if ended and lines and any(self._levels[level + 1 :]):
                return level, len(lines)
        return None

    def take(self, part: Part, summary: str) -> None:
        """Put the summary of ``part``, which must be the one that is due, in the place of its captions."""
        level = part.level - 1
        del self._levels[level][: len(part.captions)]
        self._parts[level] += 1
        last = part.captions[-1]
        whole = TimedCaption(last.number, last.timestamp_s, summary, part.start_s)
        self._add(part.level, whole, part.start_s)

    def whole(self) -> tuple[TimedCaption, ...]:
        """Return what is left when nothing is due: it stands for all there was, and fits one prompt."""
        return tuple(line.caption for lines in reversed(self._levels) for line in lines)

    def _add(self, level: int, caption: TimedCaption, start_s: float, anchor: bool = False) -> None:
        if level == len(self._levels):
            self._levels.append([])
            self._parts.append(0)
        most = self._room / 2 - LINE_TOKENS  # so that any two fit, and every level is shorter than the last
        if estimated_tokens(caption.caption) > most:
            caption = replace(caption, caption=shortened(caption.caption, int(most)))
            self.shortened += 1
        tokens = LINE_TOKENS + estimated_tokens(caption.caption)
        self._levels[level].append(_Line(caption, start_s, anchor, tokens))

    def _cut(self, level: int) -> int:
        """Return how many of a level's lines are to be summed up because no more fit; 0 for none.

        They end before the last anchor, or in the middle where there is none; a part that begins with a
        change never follows a full caption that is in no part.
        """
        lines = self._levels[level]
        anchors = [number for number, line in enumerate(lines) if number and line.anchor]
        if anchors and self._every_anchor:
            return anchors[0]
        if sum(line.tokens for line in lines) <= self._room:
            return 0
        if anchors:
            return anchors[-1]
        return max(len(lines) // 2, 2)


def shortened(text: str, most_tokens: int) -> str:
    """Cut a text at a word so that it is estimated at no more than ``most_tokens``."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if estimated_tokens(text[:middle] + _CUT_MARK) <= most_tokens:
            low = middle
        else:
            high = middle - 1
    head = text[:low]
    if low < len(text) and " " in head:
        head = head[: head.rindex(" ")]
    return head + _CUT_MARK


def _is_letter(character: str) -> bool:
    return character == " " or (character.isascii() and character.isalpha())
