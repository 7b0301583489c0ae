"""A database on disk for what one process need not hold in memory; losing it costs nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from share4video.errors import UserError

_ROWS_AT_ONCE = 256
_CACHE_KIB = 2048


class ScratchDatabase:
    """An SQLite file of this process alone, made anew and removed at the end; threads may share it.

    A process that is killed leaves its file behind, so give a name that the next run uses again.

    Raises:
        UserError: the file cannot be made, or, from any method, the disk is full.
    """

    def __init__(self, path: Path, *tables: str) -> None:
        """``tables`` are the statements that make its tables."""
        self.path = path
        self._lock = threading.RLock()
        path.unlink(missing_ok=True)
        with self._said_plainly():
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}"):
                self._connection.execute(f"PRAGMA {pragma}")
            for table in tables:
                self._connection.execute(table)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return all rows it yields."""
        with self._lock, self._said_plainly():
            return self._connection.execute(statement, values).fetchall()

    def execute_many(self, statement: str, values: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each of ``values``, which may come from `rows` of another table."""
        with self._lock, self._said_plainly():
            self._connection.execute("BEGIN")
            self._connection.executemany(statement, values)
            self._connection.execute("COMMIT")

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query, a few at a time; what it reads must not change meanwhile."""
        with self._lock, self._said_plainly():
            cursor = self._connection.execute(statement, values)
        while True:
            with self._lock, self._said_plainly():
                found = cursor.fetchmany(_ROWS_AT_ONCE)
            if not found:
                return
            yield from found

    def close(self) -> None:
        """Close and remove the file."""
        with self._lock:
            self._connection.close()
        self.path.unlink(missing_ok=True)

    @contextmanager
    def _said_plainly(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise UserError(
                f"cannot use a scratch file: {error}", where=str(self.path), fix="make room on that disk"
            ) from error
