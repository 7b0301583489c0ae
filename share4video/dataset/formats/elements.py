"""Elements of a JSON list, or of JSON lines, one by one: the file may be far larger than memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from share4video.dataset.formats.lines import Reject, json_lines
from share4video.errors import UserError

MAX_ELEMENT_BYTES = 4 << 20
MAX_DEPTH = 64
_BUFFER = 1 << 16
_PER_VALUE = 16  # bytes a value counts for beside its text
_FIRST, _NEXT, _LAST = b"[\n", b",\n", b"\n]\n"


def list_elements(path: Path) -> Iterator[tuple[int, Any] | Reject]:
    """Yield the number, from 1, and the value of each element of a file that is one JSON list.

    An element of more than ``MAX_ELEMENT_BYTES``, or nested deeper than ``MAX_DEPTH``, is a reject
    (``element_too_large``). Numbers are ``int`` or ``float``; one over 64 bits breaks the list off.

    Raises:
        UserError: the file cannot be read or holds no JSON list; where the list breaks off, after what came
            before was yielded.
    """
    with closing(_opened(path)) as file:
        if _first_character(file) != b"[":
            raise UserError("the file holds no JSON list", where=str(path), fix="give a file of that format")
        yield from _elements(file, path)


def any_elements(path: Path) -> Iterator[tuple[int, Any] | Reject]:
    """Yield the elements of a JSON list, or the lines of JSON lines: the first character tells which it is.

    Raises:
        UserError: as `list_elements`.
    """
    with closing(_opened(path)) as file:
        yield from _elements(file, path) if _first_character(file) == b"[" else json_lines(file)


def list_chunks(values: Iterable[Any]) -> Iterator[bytes]:
    """Yield the bytes of a JSON list, one value per line; equal values give equal bytes."""
    before = _FIRST
    for value in values:
        yield before + _encoded(value)
        before = _NEXT
    yield (before if before == _FIRST else b"") + _LAST


class ListWriter:
    """Writes the bytes of `list_chunks` to a file, value by value as they are given; end with `close`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._before = file, _FIRST

    def add(self, value: Any) -> None:
        self._file.write(self._before + _encoded(value))
        self._before = _NEXT

    def close(self) -> None:
        self._file.write((self._before if self._before == _FIRST else b"") + _LAST)


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(
            f"cannot read the file: {error.strerror}", where=str(path), fix="check the path"
        ) from error


def _first_character(file: BinaryIO) -> bytes:
    """Return the first byte that is no white space, and go back to the start."""
    while (block := file.read(_BUFFER)) and not block.strip():
        pass
    file.seek(0)
    return block.strip()[:1]


def _elements(file: BinaryIO, path: Path) -> Iterator[tuple[int, Any] | Reject]:
    number, building = 0, _Building()
    fuse = _Fuse(file)
    # Numbers of 64 bits: the parser's C code does not survive Python refusing one of thousands of digits.
    events = ijson.basic_parse(fuse, buf_size=_BUFFER, use_float=True)
    try:
        next(events)  # the start of the list
        for event, value in events:
            fuse.spent = 0
            if event == "end_array" and building.depth == 0:
                continue  # the end of the list: what follows it is an error of its own
            if building.take(event, value):
                number += 1
                yield building.finished(number)
                building = _Building()
    except (ijson.JSONError, ValueError) as error:
        what = " ".join(str(error.args[0] if error.args else error).split())[:100]
        raise UserError(
            f"the JSON breaks off after {number} elements: {what}", where=str(path), fix="fetch it again"
        ) from error


class _Fuse:
    """A file that breaks where a single text or number in it goes on for too long."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.spent = 0

    def read(self, count: int) -> bytes:
        self.spent += count
        if self.spent > MAX_ELEMENT_BYTES + _BUFFER:
            raise ValueError(f"a value is longer than {MAX_ELEMENT_BYTES} bytes")
        return self._file.read(count)


@dataclass
class _Building:
    """An element as its events come; one that goes over a bound is read on but not kept."""

    depth: int = 0
    _size: int = 0
    _over: bool = False
    _root: Any = None
    _holders: list[Any] = field(default_factory=list)
    _keys: list[str] = field(default_factory=list)

    def take(self, event: str, value: Any) -> bool:
        """Take an event; return whether the element is complete."""
        opening, closing_ = event in ("start_map", "start_array"), event in ("end_map", "end_array")
        self.depth += opening - closing_
        self._size += _PER_VALUE + (len(value) if isinstance(value, str) else 0)
        if self._over or self._size > MAX_ELEMENT_BYTES or self.depth > MAX_DEPTH:
            self._over, self._root = True, None
            self._holders.clear()
        elif event == "map_key":
            self._keys[-1] = value
        elif opening:
            holder: Any = {} if event == "start_map" else []
            self._put(holder)
            self._holders.append(holder)
            self._keys.append("")
        elif closing_:
            self._holders.pop()
            self._keys.pop()
        else:
            self._put(value)
        return self.depth == 0

    def _put(self, value: Any) -> None:
        if not self._holders:
            self._root = value
        elif isinstance(self._holders[-1], dict):
            self._holders[-1][self._keys[-1]] = value
        else:
            self._holders[-1].append(value)

    def finished(self, number: int) -> tuple[int, Any] | Reject:
        if self._over:
            bounds = f"{MAX_ELEMENT_BYTES} bytes and {MAX_DEPTH} levels"
            return Reject(number, "element_too_large", f"the element is over {bounds}")
        return number, self._root
