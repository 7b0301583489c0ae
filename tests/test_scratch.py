from __future__ import annotations

from pathlib import Path

import pytest

from share4video.errors import UserError
from share4video.scratch import ScratchDatabase

TABLE = "CREATE TABLE numbers (number INTEGER PRIMARY KEY, square INTEGER)"


def test_it_begins_empty_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "scratch"
    path.write_bytes(b"what a killed run left behind")
    database = ScratchDatabase(path, TABLE)
    assert database.execute("SELECT * FROM numbers") == []
    database.execute("INSERT INTO numbers VALUES (2, 4)")
    assert database.execute("SELECT square FROM numbers WHERE number = ?", (2,)) == [(4,)]
    database.close()
    assert list(tmp_path.iterdir()) == []


def test_rows_of_one_table_go_into_another(tmp_path: Path) -> None:
    database = ScratchDatabase(tmp_path / "scratch", TABLE, "CREATE TABLE odd (number INTEGER PRIMARY KEY)")
    database.execute_many("INSERT INTO numbers VALUES (?, ?)", ((n, n * n) for n in range(1000)))
    found = database.rows("SELECT number FROM numbers ORDER BY number")
    database.execute_many("INSERT INTO odd VALUES (?)", ((n,) for (n,) in found if n % 2))
    assert database.execute("SELECT count(*), sum(number) FROM odd") == [(500, 250_000)]
    database.close()


def test_a_file_that_cannot_be_made_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot use a scratch file"):
        ScratchDatabase(tmp_path / "missing" / "scratch", TABLE)


def test_a_full_disk_is_a_users_error(tmp_path: Path) -> None:
    database = ScratchDatabase(tmp_path / "scratch", TABLE, "PRAGMA max_page_count=4")
    with pytest.raises(UserError, match="full"):
        database.execute_many("INSERT INTO numbers VALUES (?, ?)", ((n, n) for n in range(10_000)))
    database.close()
