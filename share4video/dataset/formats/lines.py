"""Lines of a file that comes from outside: none is read further than a bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

MAX_LINE_BYTES = 4 << 20
LINE_TOO_LONG = f"the line is longer than {MAX_LINE_BYTES} bytes"


def numbered_lines(reader: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line's number, from 1, and its bytes, or None for a line over ``MAX_LINE_BYTES``."""
    number = 0
    while line := reader.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) <= MAX_LINE_BYTES:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = reader.readline(MAX_LINE_BYTES)
        yield number, None
