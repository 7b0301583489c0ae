"""Open-Sora's list of videos with captions, a CSV file.

Its columns are those of Open-Sora's ``tools/datasets``: ``path`` and ``text``, and of the others
``num_frames``, ``width``, ``height``, ``aspect_ratio`` (height by width), ``resolution`` (height times width)
and ``fps``. A row is a whole file: the form has no columns for a span of one.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from share4video.dataset.formats.lines import Reject, numbered_lines
from share4video.errors import UserError

COLUMNS = ("path", "text", "num_frames", "width", "height", "aspect_ratio", "resolution", "fps")


@dataclass(frozen=True)
class Video:
    """A row; ``path`` is relative to wherever the trainer looks. Numbers are 0 where they are not known."""

    path: str
    text: str
    num_frames: int
    width: int
    height: int
    fps: float


def chunks(videos: Iterable[Video]) -> Iterator[bytes]:
    """Yield the file's bytes, header first; equal videos give equal bytes."""
    yield _line(COLUMNS)
    for video in videos:
        aspect = video.height / video.width if video.width else 0.0
        size = (video.width, video.height, aspect, video.height * video.width)
        yield _line((video.path, video.text, video.num_frames, *size, video.fps))


def read(path: Path) -> Iterator[Video | Reject]:
    """Yield one video or one reject per row, in order. Only ``path`` and ``text`` have to be there.

    Reasons are ``line_too_long``, ``not_text`` and ``wrong_shape``. ``Reject.number`` is a row's last line.

    Raises:
        UserError: the file cannot be read, or has no header with these two columns.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(
            f"cannot read the list: {error.strerror}", where=str(path), fix="check the path"
        ) from error
    with file:
        rows = csv.reader(_decoded(file), strict=True)
        header = _next(rows)
        if not isinstance(header, list) or not {"path", "text"} <= set(header):
            raise UserError("the list has no columns path and text", where=str(path), fix="add a header")
        while (row := _next(rows)) is not None:
            if row:
                yield _video(header, row, rows.line_num)


def _line(values: Iterable[object]) -> bytes:
    sink = io.StringIO()
    csv.writer(sink, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerow(values)
    return sink.getvalue().encode()


def _decoded(file: BinaryIO) -> Iterator[str]:
    """Yield lines as text; what is too long goes over the CSV reader's own bound as well."""
    for number, line in numbered_lines(file):
        if line is None:
            yield "x" * (csv.field_size_limit() + 1)
        else:
            yield line.decode("utf-8", "surrogateescape").removeprefix("\ufeff" if number == 1 else "")


def _next(rows: Iterator[list[str]]) -> list[str] | str | None:
    """Return the next row, what is wrong with it, or None at the end."""
    try:
        return next(rows)
    except StopIteration:
        return None
    except csv.Error as error:
        return str(error)


def _video(header: list[str], row: list[str] | str, number: int) -> Video | Reject:
    if isinstance(row, str):
        reason = "line_too_long" if "field limit" in row else "wrong_shape"
        return Reject(number, reason, f"it is no CSV: {row}")
    if len(row) != len(header):
        return Reject(number, "wrong_shape", f"it has {len(row)} fields and the header {len(header)}")
    fields = dict(zip(header, row, strict=True))
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return Reject(number, "not_text", "it is not UTF-8")
    try:
        numbers = {name: float(fields.get(name) or 0) for name in ("num_frames", "width", "height", "fps")}
        if not all(0 <= value < math.inf for value in numbers.values()):
            raise ValueError("a number is negative or not finite")
    except ValueError as error:
        return Reject(number, "wrong_shape", str(error))
    if not fields["path"] or not fields["text"].strip():
        return Reject(number, "wrong_shape", "path or text is empty")
    whole = {name: int(numbers[name]) for name in ("num_frames", "width", "height")}
    return Video(fields["path"], fields["text"], **whole, fps=numbers["fps"])
