"""Lists: formats, columns, broken lines; and what a list may name."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.media.sources import clip_file, join_sources, list_sources
from tests.media.sources.material import contents, sha, write_archive, write_files

ROWS = [
    {"uri": "films/b.mp4", "id": "7", "licence": "CC0", "views": "12", "title": "Ça va"},
    {"uri": "films/a.mp4", "id": "3", "licence": "MIT", "views": "5", "title": "A, quoted"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "data", {"films/a.mp4": b"A", "films/b.mp4": b"B"})


def write_list(path: Path, rows: list[dict[str, str]]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [list(rows[0]), *([f'"{value}"' for value in row.values()] for row in rows)]
        path.write_text("".join(",".join(line) + "\r\n" for line in lines), encoding="utf-8-sig")
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_format_says_the_same(folder: Path, suffix: str) -> None:
    source = write_list(folder / f"list{suffix}", ROWS)
    rows = list_sources(source)
    assert contents(rows) == {"films/a.mp4": sha(b"A"), "films/b.mp4": sha(b"B")}
    assert [(row.source_id, row.licence, row.metadata) for row in rows] == [
        ("3", "MIT", '{"title": "A, quoted", "views": "5"}'),
        ("7", "CC0", '{"title": "Ça va", "views": "12"}'),
    ]
    with clip_file(source, {"clip_id": "c", "source_uri": "films/b.mp4", "content_hash": sha(b"B")}) as path:
        assert path == folder / "films" / "b.mp4"


def test_a_uri_is_all_a_list_needs(folder: Path) -> None:
    (row,) = list_sources(write_list(folder / "list.jsonl", [{"uri": "films/a.mp4"}]))
    assert (row.source_id, row.licence, row.metadata) == (None, None, None)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_list_without_uris_names_the_columns_it_has(folder: Path, suffix: str) -> None:
    source = write_list(folder / f"list{suffix}", [{"path": "films/a.mp4", "id": "3"}])
    with pytest.raises(UserError, match="no column 'uri', its columns are id, path") as caught:
        list_sources(source)
    assert caught.value.where == source


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("list.jsonl", b"", "there is no row in the list"),
        ("list.csv", b"uri,id\n", "there is no row in the list"),
        ("list.parquet", b"PAR1 but not really PAR1", "this is no Parquet file"),
        ("list.csv", b"\x00\xff\xfe", "no column 'uri'"),
    ],
)
def test_what_is_no_list_is_said(folder: Path, name: str, data: bytes, said: str) -> None:
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=said) as caught:
        list_sources(str(folder / name))
    assert caught.value.where == str(folder / name)


def test_broken_lines_are_rejects_with_their_number(folder: Path) -> None:
    lines = [b'{"uri": "films/a.mp4"}', b"", b'{"uri": ', b"[1]", b'{"id": "x"}', b'{"uri": "\\ud800"}']
    lines += [b'{"uri": "films/b.mp4", "much": "' + bytes(5 << 20) + b'"}', b'{"uri": "films/b.mp4"}']
    (folder / "list.jsonl").write_bytes(b"\n".join(lines))
    found = contents(list_sources(str(folder / "list.jsonl")))
    assert {uri: said.partition(":")[0] for uri, said in found.items() if "jsonl" in uri} == {
        "list.jsonl:3": "not_json",
        "list.jsonl:4": "wrong_shape",
        "list.jsonl:5": "wrong_shape",
        "list.jsonl:6": "wrong_shape",
        "list.jsonl:7": "line_too_long",
    }
    assert found["list.jsonl:5"] == "wrong_shape: line 5: there is no uri"
    assert (found["films/a.mp4"], found["films/b.mp4"]) == (sha(b"A"), sha(b"B"))
    assert len(found) == 7


def test_a_quote_that_nobody_closed_swallows_no_line(folder: Path) -> None:
    for header, first in (("uri", '"films/a.mp4'), ("uri,id", '"films/a.mp4,1')):
        (folder / "list.csv").write_text(
            f"{header}\nfilms/b.mp4{',2' * (',' in header)}\n{first}\nc.mp4\nd.mp4\n"
        )
        found = contents(list_sources(str(folder / "list.csv")))
        assert sorted(found) == ["films/b.mp4", *(f"list.csv:{n}" for n in (3, 4, 5))]
    (folder / "list.csv").write_text('uri\n"films/a.mp4\nc.mp4"\nfilms/b.mp4\n')
    found = contents(list_sources(str(folder / "list.csv")))
    assert sorted(found) == ["films/b.mp4", "list.csv:2", "list.csv:3"]


def test_broken_lines_of_a_csv_do_not_take_others_along(folder: Path) -> None:
    lines = [
        b"uri,id",
        b"films/a.mp4,1",
        b"films/a.mp4",
        b"caf\xe9.mp4,2",
        b",3",
        b"x" * (5 << 20),
        b"films/b.mp4,4",
    ]
    (folder / "list.csv").write_bytes(b"\n".join(lines))
    found = contents(list_sources(str(folder / "list.csv")))
    assert sorted(found) == ["films/a.mp4", "films/b.mp4", *(f"list.csv:{n}" for n in (3, 4, 5, 6))]
    assert found["list.csv:3"] == "wrong_shape: line 3: it has 1 fields and the header 2"


def test_a_list_names_what_lies_below_it_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    write_files(tmp_path, {"secret.mp4": b"S", "clips/c.mp4": b"C", "clips-private/p.mp4": b"P"})
    write_archive(tmp_path / "clips" / "pack.zip", {"z.mp4": b"Z"})
    write_archive(folder / "own.zip", {"z.mp4": b"Z"})
    (folder / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    (folder / "way").symlink_to(tmp_path)
    (folder / "in.mp4").symlink_to(folder / "films" / "a.mp4")
    (folder / "allowed.mp4").symlink_to(tmp_path / "clips" / "c.mp4")
    inside = {
        "in.mp4": b"A",
        "own.zip/z.mp4": b"Z",
        f"{folder}/films/b.mp4": b"B",
    }
    allowed = {f"{tmp_path}/clips/c.mp4": b"C", f"{tmp_path}/clips/pack.zip/z.mp4": b"Z", "allowed.mp4": b"C"}
    refused = [
        "../secret.mp4",
        "films/../../secret.mp4",
        "out.mp4",
        "way/secret.mp4",
        f"{tmp_path}/secret.mp4",
        f"{tmp_path}/clips/../secret.mp4",
        f"{tmp_path}/clips-private/p.mp4",
        "/etc/passwd",
        "s3://bucket/a.mp4",
        "https://example.com/a.mp4",
        "http://example.com/a.mp4",
        "file:///etc/passwd",
    ]
    listed = [{"uri": uri} for uri in [*inside, *allowed, *refused]]
    source = write_list(folder / "list.jsonl", listed)
    alone = contents(list_sources(source))
    for uri in [*allowed, *refused]:
        assert alone[uri].startswith(f"not_allowed: {uri} lies neither below the list nor")
    assert {uri: alone[uri] for uri in inside} == {uri: sha(data) for uri, data in inside.items()}

    prefix = f"{tmp_path}/clips/"
    found = contents(list_sources(join_sources([source], [prefix])))
    assert {uri: found[uri] for uri in allowed} == {uri: sha(data) for uri, data in allowed.items()}
    assert all(found[uri].startswith("not_allowed") for uri in refused)

    clip = {"clip_id": "c", "source_uri": f"{tmp_path}/clips/c.mp4", "content_hash": sha(b"C")}
    with clip_file(join_sources([source], [prefix]), clip) as path:
        assert path.read_bytes() == b"C"
    with pytest.raises(MediaError) as caught, clip_file(source, clip):
        pass
    assert caught.value.reason == "not_allowed"


def test_a_file_that_is_not_there_is_a_row(folder: Path) -> None:
    source = write_list(folder / "list.jsonl", [{"uri": "films/none.mp4"}])
    assert contents(list_sources(source)) == {
        "films/none.mp4": "unreadable: the file cannot be read: No such file or directory"
    }
