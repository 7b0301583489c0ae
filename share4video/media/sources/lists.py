"""Lists of videos: one row per line of a CSV, JSONL or Parquet file.

Column ``uri`` is required; ``id`` and ``licence`` (or ``license``) are optional, and the others are kept as
the row's metadata. A line that is broken becomes a row that is refused, named by the list and its number.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from share4video.dataset.formats.lines import LINE_TOO_LONG, numbered_lines
from share4video.errors import UserError, reading

SUFFIXES = (".csv", ".jsonl", ".parquet")
URI, ID, LICENCES = "uri", "id", ("licence", "license")
_BATCH_ROWS = 1024


@dataclass(frozen=True)
class Line:
    """What a line says: a uri and what goes with it, or, under ``reason``, why it says nothing.

    Attributes:
        number: of the line in the file, or of the row in a Parquet file, from 1.
    """

    number: int
    uri: str = ""
    source_id: str | None = None
    licence: str | None = None
    metadata: str | None = None
    reason: str = ""
    sentence: str = ""


def is_list_name(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def read_list(path: Path, where: str) -> list[Line]:
    """Return the lines of a list, blank ones left out, in the file's order.

    Args:
        path: its bytes.
        where: the list as a person reads it; its suffix tells the format.

    Raises:
        UserError: the list cannot be read, is empty, or has no column ``uri``.
    """
    read = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[PurePosixPath(where).suffix.lower()]
    with reading("the list", where):
        found = list(read(path, where))
    if not found:
        raise UserError("there is no row in the list", where=where, fix="list one uri a line")
    columns = {name for values in found if isinstance(values, _Values) for name in values.fields}
    if columns and URI not in columns:
        raise no_column(where, columns)
    return [_line(values) if isinstance(values, _Values) else values for values in found]


def no_column(where: str, columns: set[str]) -> UserError:
    return UserError(
        f"the list has no column {URI!r}, its columns are {', '.join(sorted(columns))}",
        where=where,
        fix=f"name the column of the addresses {URI!r}",
    )


@dataclass(frozen=True)
class _Values:
    number: int
    fields: Mapping[str, Any]


def _line(values: _Values) -> Line:
    number, fields = values.number, dict(values.fields)
    uri = fields.pop(URI, None)
    if not isinstance(uri, str) or not uri.strip():
        return broken(number, "wrong_shape", f"there is no {URI}")
    source_id = fields.pop(ID, None)
    licences = [fields.pop(name) for name in LICENCES if name in fields]
    kept = {name: value for name, value in fields.items() if value is not None}
    try:
        metadata = canonical(kept) if kept else None
        "".join([uri, str(source_id), str(licences), metadata or ""]).encode()
    except (ValueError, RecursionError) as error:
        return broken(number, "wrong_shape", f"it holds what is no text: {error}")
    return Line(
        number,
        uri=uri.strip(),
        source_id=_text(source_id),
        licence=next((text for value in licences if (text := _text(value))), None),
        metadata=metadata,
    )


def broken(number: int, reason: str, why: str) -> Line:
    """Return a line that says nothing, and why."""
    return Line(number, reason=reason, sentence=f"line {number}: {why}")


def canonical(fields: Mapping[str, Any]) -> str:
    """Return a JSON object with sorted keys; what JSON does not know, such as a date, is its text."""
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, allow_nan=False, default=str)


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _csv(path: Path, where: str) -> Iterator[_Values | Line]:
    with path.open("rb") as file:
        # What is no UTF-8 is refused with its row; what is too long is over the reader's own bound, too.
        lines = (
            "x" * (csv.field_size_limit() + 1) if line is None else line.decode("utf-8", "surrogateescape")
            for _, line in numbered_lines(file)
        )
        rows = csv.reader(lines, strict=True)
        header: list[str] | None = None
        while True:
            number = rows.line_num + 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                for line in range(number, rows.line_num + 1):
                    yield broken(line, "wrong_shape", f"it is no CSV: {error}")
                continue
            if header is None:
                header = [name.removeprefix("\ufeff") for name in row]
                if URI not in header:
                    raise no_column(where, set(header))
            elif row and len(row) != len(header):
                why = f"it has {len(row)} fields and the header {len(header)}"
                for line in range(number, rows.line_num + 1):
                    yield broken(line, "wrong_shape", why)
            elif row and "\n" in row[header.index(URI)]:  # a quote that nobody closed swallowed lines
                for line in range(number, rows.line_num + 1):
                    yield broken(line, "wrong_shape", f"it is in quotes opened in line {number}")
            elif row:
                yield _Values(number, dict(zip(header, row, strict=True)))


def _jsonl(path: Path, where: str) -> Iterator[_Values | Line]:
    with path.open("rb") as file:
        for number, line in numbered_lines(file):
            if line is None:
                yield broken(number, "line_too_long", LINE_TOO_LONG)
            elif line.strip():
                try:
                    value = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant)
                except (ValueError, RecursionError) as error:
                    yield broken(number, "not_json", f"it is not JSON in UTF-8: {error}")
                    continue
                if isinstance(value, dict):
                    yield _Values(number, value)
                else:
                    yield broken(number, "wrong_shape", "it holds no JSON object")


def _parquet(path: Path, where: str) -> Iterator[_Values | Line]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            if URI not in file.schema_arrow.names:
                raise no_column(where, set(file.schema_arrow.names))
            for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
                for fields in batch.to_pylist():
                    number += 1
                    yield _Values(number, fields)
    except (pa.ArrowException, pa.ArrowInvalid) as error:
        raise UserError(
            "this is no Parquet file, or it is damaged", where=where, fix="write the list again"
        ) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
