"""Which of very many texts came before, in eight bytes each."""

from __future__ import annotations

import hashlib

import numpy as np

_LEAST = 1 << 14  # texts gathered before they are sorted in


class Distinct:
    """A set of texts that only grows. Two texts of one 64-bit hash count as one.

    Of five million texts any two share a hash with a probability under one in a million.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._recent: set[int] = set()
        self._twice: set[int] = set()

    def add(self, text: str) -> bool:
        """Add a text; return whether it is new."""
        value = _hash(text)
        if self._holds(value):
            self._twice.add(value)
            return False
        self._recent.add(value)
        if len(self._recent) >= max(_LEAST, len(self._sorted) // 8):
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.sort(np.concatenate([self._sorted, recent]))
            self._recent.clear()
        return True

    def again(self, text: str) -> bool:
        """Say whether a text was added more than once."""
        return _hash(text) in self._twice

    def _holds(self, value: int) -> bool:
        if value in self._recent:
            return True
        place = int(np.searchsorted(self._sorted, np.uint64(value)))
        return place < len(self._sorted) and int(self._sorted[place]) == value


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
