"""Text that comes in pieces, cut where the first of some strings begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


class StopStrings:
    """Passes text on until one of ``stop`` has come, in whatever pieces it came; the string is not passed on.

    Text that may be the beginning of such a string is held back until it is clear. Where two of them end at
    the same character, the one that began first counts.

    Attributes:
        found: whether one of them has come; what is pushed after that is dropped.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.found = False
        self._stop = tuple(stop)
        self._held = ""

    def push(self, text: str) -> str:
        """Return what may be shown now that ``text`` has come."""
        shown = ""
        for character in text:  # one at a time: the string that is whole first is the one that ends the text
            if self.found:
                break
            self._held += character
            whole = [one for one in self._stop if self._held.endswith(one)]
            if whole:
                self.found = True
                shown += self._held[: -max(map(len, whole))]
                self._held = ""
            else:
                kept = self._longest_beginning()
                shown += self._held[: len(self._held) - kept]
                self._held = self._held[len(self._held) - kept :]
        return shown

    def flush(self) -> str:
        """Return what was held back, as no more text comes."""
        rest, self._held = self._held, ""
        return rest

    def cut(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield ``pieces`` as far as they are shown; stops taking them once a string was found."""
        for piece in pieces:
            shown = self.push(piece)
            if shown:
                yield shown
            if self.found:
                return
        rest = self.flush()
        if rest:
            yield rest

    def _longest_beginning(self) -> int:
        """Return how many characters at the end of what is held may be the beginning of a stop string."""
        longest = max((len(one) for one in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(one.startswith(self._held[-length:]) for one in self._stop):
                return length
        return 0
