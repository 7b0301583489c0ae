"""Which rows a source has, what they are called, and that nothing but names and content decides it."""

from __future__ import annotations

import csv
import os
import random
import shutil
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from share4video.errors import UserError
from share4video.media.sources import join_sources, list_sources
from tests.media.sources.material import contents, sha, write_archive, write_files

FILES = {"a.mp4": b"A", "deep/er/b.mov": b"B", "notes.txt": b"-", "a.json": b"{}"}


def uris(source: str, **options: object) -> list[str]:
    return [row.uri for row in list_sources(source, **options)]  # type: ignore[arg-type]


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """A folder, a pattern, a file, an archive and a list."""
    write_files(tmp_path / "films", FILES)
    write_files(tmp_path / "takes", {"one.mp4": b"1", "two.mp4": b"2", "three.avi": b"3"})
    write_files(tmp_path, {"single.mp4": b"S", "listed/l.mp4": b"L"})
    write_archive(tmp_path / "pack.zip", {"in/z.mp4": b"Z", "read.txt": b"-"})
    (tmp_path / "list.csv").write_text("uri,id\nlisted/l.mp4,7\n")
    return [str(tmp_path / name) for name in ("films", "takes/*.mp4", "single.mp4", "pack.zip", "list.csv")]


ALONE = [
    ["a.mp4", "deep/er/b.mov"],
    ["one.mp4", "two.mp4"],
    ["single.mp4"],
    ["pack.zip/in/z.mp4"],
    ["listed/l.mp4"],
]
TOGETHER = {
    "films/a.mp4": sha(b"A"),
    "films/deep/er/b.mov": sha(b"B"),
    "list.csv/listed/l.mp4": sha(b"L"),
    "pack.zip/in/z.mp4": sha(b"Z"),
    "single.mp4": sha(b"S"),
    "takes/one.mp4": sha(b"1"),
    "takes/two.mp4": sha(b"2"),
}


def test_one_source_names_its_rows_relative_to_it(places: list[str]) -> None:
    assert [uris(place) for place in places] == ALONE


def test_several_sources_begin_with_their_names_in_any_order(places: list[str]) -> None:
    orders = [places, places[::-1], random.Random(1).sample(places, len(places))]
    listed = [list_sources(join_sources(order)) for order in orders]
    for rows in listed:
        assert contents(rows) == TOGETHER
        assert [row.uri for row in rows] == sorted(TOGETHER)
    assert len({tuple(row.row_id for row in rows) for rows in listed}) == 1


def test_a_row_is_named_alike_wherever_its_source_is(places: list[str], tmp_path: Path) -> None:
    here = [row.row_id for row in list_sources(join_sources(places))]
    moved = tmp_path / "else where" / "deeper"
    shutil.copytree(tmp_path, moved, ignore=shutil.ignore_patterns("copies", "else where"))
    there = [str(moved / Path(place).relative_to(tmp_path)) for place in places]
    assert [row.row_id for row in list_sources(join_sources(there))] == here


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("x/films", "y/films"):
        write_files(tmp_path / folder, {"a.mp4": b"A"})
    with pytest.raises(UserError, match="two sources are called 'films'") as caught:
        list_sources(join_sources([str(tmp_path / "x/films"), str(tmp_path / "y/films/")]))
    assert "x/films" in caught.value.where and "y/films" in caught.value.where


def test_a_line_break_cannot_pretend_to_be_two_sources(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds a line break"):
        join_sources([f"{tmp_path}\n/etc"])


def test_patterns_reach_any_depth_and_take_folders_whole(tmp_path: Path) -> None:
    write_files(tmp_path, {"p1/a.mp4": b"", "p1/s/b.mp4": b"", "p2/c.mov": b"", "q/d.mp4": b""})
    assert uris(f"{tmp_path}/**/*.mp4") == ["p1/a.mp4", "p1/s/b.mp4", "q/d.mp4"]
    assert uris(f"{tmp_path}/p*") == ["p1/a.mp4", "p1/s/b.mp4", "p2/c.mov"]
    with pytest.raises(UserError, match="the pattern matches no file") as caught:
        uris(f"{tmp_path}/p1/*.webm")
    assert caught.value.where == f"{tmp_path}/p1/*.webm"


def test_a_name_that_looks_like_a_pattern_is_a_name_where_it_exists(tmp_path: Path) -> None:
    write_files(tmp_path, {"take[1].mp4": b"1", "set[2]/a.mp4": b"A"})
    assert uris(str(tmp_path / "take[1].mp4")) == ["take[1].mp4"]
    assert uris(str(tmp_path / "set[2]")) == ["a.mp4"]


def test_what_is_no_source_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="on this machine or on S3"):
        list_sources("gs://bucket/films")
    with pytest.raises(UserError, match="no such folder or file"):
        list_sources(str(tmp_path / "none.csv"))
    with pytest.raises(UserError, match="there is no source"):
        list_sources("\n")
    with pytest.raises(UserError, match="only a jsonl has a zip_folder"):
        list_sources(f"{tmp_path}#zip_folder=/mnt")


def test_one_uri_listed_twice_is_two_rows_whatever_the_order(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.mp4": b"A"})
    lines = [("a.mp4", "2", "CC0"), ("a.mp4", "1", "MIT"), ("a.mp4", "1", "CC0")]
    seen = []
    for order in (lines, lines[::-1]):
        with (tmp_path / "list.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("uri", "id", "licence"), *order])
        rows = list_sources(str(tmp_path / "list.csv"))
        seen.append([(row.row_id, row.source_id, row.licence, row.occurrence) for row in rows])
    assert seen[0] == seen[1]
    assert [row[1:] for row in seen[0]] == [("1", "CC0", 0), ("1", "MIT", 1), ("2", "CC0", 2)]
    assert len({row[0] for row in seen[0]}) == 3
    single = list_sources(str(tmp_path / "a.mp4"))
    assert single[0].row_id == seen[0][0][0]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 40), parts=st.integers(1, 6), limit=st.none() | st.integers(1, 50))
def test_the_shards_together_are_the_whole(tmp_path: Path, count: int, parts: int, limit: int | None) -> None:
    folder = tmp_path / f"{count}-{parts}-{limit}"
    write_files(folder, {f"{number}.mp4": b"" for number in range(count)})
    whole = uris(str(folder), limit=limit)
    assert whole == uris(str(folder))[:limit]
    found = []
    for part in range(1, parts + 1):
        try:
            found.append(uris(str(folder), limit=limit, shard=(part, parts)))
        except UserError:  # none falls to this one
            continue
    assert sorted(uri for shard in found for uri in shard) == whole


def test_a_fingerprint_follows_the_content(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.mp4": b"A"})
    write_archive(tmp_path / "z.zip", {"a.mp4": b"A" * 9})
    assert [row.fingerprint() for row in list_sources(str(tmp_path))] == [
        f"sha256:{sha(b'A')}",
        f"crc32:{zlib.crc32(b'A' * 9):08x}:9",
    ]


def test_names_that_are_not_utf8_are_rows_that_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path / "odd", {"a.mp4": b"A"})
    (tmp_path / "odd" / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"B")
    assert contents(list_sources(str(tmp_path / "odd"))) == {
        "a.mp4": sha(b"A"),
        "caf\\xe9.mp4": "unreadable: the file's name is not UTF-8",
    }
