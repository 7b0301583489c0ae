"""Lines of a file that comes from outside: none is read further than a bound."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

MAX_LINE_BYTES = 4 << 20
LINE_TOO_LONG = f"the line is longer than {MAX_LINE_BYTES} bytes"


@dataclass(frozen=True)
class Reject:
    """A line, or an element of a list, that is not what the format says. Numbers count from 1."""

    number: int
    reason: str
    sentence: str


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


def json_lines(reader: BinaryIO) -> Iterator[tuple[int, Any] | Reject]:
    """Yield the number and the JSON value of each line that is not blank, or why it has none.

    Reasons are ``line_too_long`` and ``not_json``.
    """
    for number, line in numbered_lines(reader):
        if line is None:
            yield Reject(number, "line_too_long", LINE_TOO_LONG)
        elif line.strip():
            yield json_line(line, number)


def json_line(line: bytes, number: int) -> tuple[int, Any] | Reject:
    """Return the number and the JSON value of a line, or why it has none."""
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate passes JSON but is no text
    except (ValueError, RecursionError) as error:
        return Reject(number, "not_json", f"the line is not JSON in UTF-8: {error}")
    return number, value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
