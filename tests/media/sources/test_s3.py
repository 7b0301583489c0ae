"""Objects and archives on a real S3 server: what is read, how much of it, and what is said when it fails."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.response import StreamingBody

from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.media.sources import clip_file, join_sources, list_sources
from tests.media.sources.material import MAX_BYTES, contents, sha, upload, write_archive

NOISE = random.Random(0).randbytes(400_000)


@pytest.fixture
def films(s3_root: str) -> str:
    return upload(s3_root, {"a.mp4": b"A", "deep/b.mp4": NOISE, "notes.txt": b"-", "folder/": b""})


def bucket_of(root: str) -> str:
    return root.removeprefix("s3://").partition("/")[0]


def test_a_prefix_and_a_single_object(films: str) -> None:
    assert contents(list_sources(films)) == {"a.mp4": sha(b"A"), "deep/b.mp4": sha(NOISE)}
    assert contents(list_sources(f"{films}/deep/")) == {"b.mp4": sha(NOISE)}
    assert contents(list_sources(f"{films}/a.mp4")) == {"a.mp4": sha(b"A")}
    whole = contents(list_sources(f"s3://{bucket_of(films)}"))
    assert whole == {"some/prefix/a.mp4": sha(b"A"), "some/prefix/deep/b.mp4": sha(NOISE)}


def test_a_clip_on_s3_is_given_as_a_file_with_its_bytes(films: str, tmp_path: Path, copies: Path) -> None:
    clip = {"clip_id": "abc", "source_uri": "deep/b.mp4", "content_hash": sha(NOISE)}
    single = {**clip, "source_uri": "b.mp4"}
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "x.mp4").touch()
    several = join_sources([films, str(tmp_path / "here")])
    for source, row in (
        (films, clip),
        (f"{films}/deep", single),
        (f"{films}/deep/b.mp4", single),
        (several, {**clip, "source_uri": "prefix/deep/b.mp4"}),
    ):
        with clip_file(source, row) as path:
            assert (path.parent, path.read_bytes()) == (copies, NOISE)
    other = {**clip, "content_hash": sha(b"other")}
    gone = {**other, "source_uri": "deep/c.mp4"}
    with pytest.raises(UserError, match="there is no such object") as caught, clip_file(films, gone):
        pass
    assert caught.value.where == f"{films}/deep/c.mp4"
    with pytest.raises(UserError, match="holds something else"), clip_file(films, other):
        pass
    with pytest.raises(MediaError, match="leads out"), clip_file(films, {**clip, "source_uri": "../x.mp4"}):
        pass


def test_fingerprints_come_from_the_listing(films: str) -> None:
    head = boto3.client("s3").head_object(Bucket=bucket_of(films), Key="some/prefix/a.mp4")
    rows = list_sources(films)
    assert rows[0].fingerprint() == f"etag:{head['ETag'].strip(chr(34))}:1"
    assert list_sources(f"{films}/a.mp4")[0].fingerprint() == rows[0].fingerprint()
    upload(films, {"a.mp4": b"B"})
    assert list_sources(films)[0].fingerprint() != rows[0].fingerprint()
    with pytest.raises(MediaError, match="changed while it was read"):
        rows[0].content_hash(max_bytes=MAX_BYTES)


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of every body that is read."""
    sizes: list[int] = []
    read = StreamingBody.read

    def counted(body: Any, amt: int | None = None) -> bytes:
        block = read(body, amt)
        sizes.append(len(block))
        return block

    monkeypatch.setattr(StreamingBody, "read", counted)
    return sizes


def test_an_archive_is_read_by_ranges(s3_root: str, tmp_path: Path, traffic: list[int]) -> None:
    members = {f"{number}.mp4": random.Random(number).randbytes(200_000) for number in range(20)}
    made = write_archive(tmp_path / "pack.zip", members, zipfile.ZIP_STORED)
    upload(s3_root, {"pack.zip": made.read_bytes(), "a.mp4": b"A"})
    rows = list_sources(f"{s3_root}/pack.zip")
    assert [row.uri for row in rows] == sorted(f"pack.zip/{name}" for name in members)
    assert sum(traffic) < 200_000  # the directory, not the archive
    clip = {"clip_id": "c", "source_uri": "pack.zip/7.mp4", "content_hash": sha(members["7.mp4"])}
    for source in (f"{s3_root}/pack.zip", s3_root):
        with clip_file(source, clip) as path:
            assert path.read_bytes() == members["7.mp4"]
    assert sum(traffic) < 700_000
    found = contents(list_sources(s3_root))
    assert found == {"a.mp4": sha(b"A")} | {f"pack.zip/{name}": sha(data) for name, data in members.items()}


def test_a_damaged_archive_on_s3(s3_root: str, tmp_path: Path) -> None:
    made = write_archive(tmp_path / "pack.zip", {f"{n}.mp4": NOISE[n:] for n in range(3)})
    data = bytearray(made.read_bytes())
    data[len(data) // 2] ^= 255
    upload(s3_root, {"pack.zip": bytes(data), "gone.zip": bytes(data[:-40])})
    found = contents(list_sources(f"{s3_root}/pack.zip"))
    assert found["pack.zip/1.mp4"] == "unreadable: the file is damaged in its archive"
    assert found["pack.zip/2.mp4"] == sha(NOISE[2:])
    with pytest.raises(UserError, match="no zip archive, or its directory is damaged") as caught:
        list_sources(f"{s3_root}/gone.zip")
    assert caught.value.where == f"{s3_root}/gone.zip"


def test_a_list_on_s3_names_what_lies_beside_it(s3_root: str, tmp_path: Path) -> None:
    made = write_archive(tmp_path / "z.zip", {"z.mp4": b"Z"})
    upload(s3_root, {"lists/a.mp4": b"A", "lists/z.zip": made.read_bytes(), "out/o.mp4": b"O"})
    uris = [
        "a.mp4",
        "z.zip/z.mp4",
        f"{s3_root}/lists/a.mp4",
        "none.mp4",
        f"{s3_root}/out/o.mp4",
        f"{s3_root}/lists/../out/o.mp4",
        "../out/o.mp4",
        "/etc/passwd",
    ]
    upload(s3_root, {"lists/list.jsonl": "".join(json.dumps({"uri": uri}) + "\n" for uri in uris).encode()})
    source = f"{s3_root}/lists/list.jsonl"
    found = contents(list_sources(source))
    assert [found[uri].partition(":")[0] for uri in uris] == [
        *(sha(b"A"), sha(b"Z"), sha(b"A"), "unreadable"),
        *["not_allowed"] * 4,
    ]
    assert found["none.mp4"] == "unreadable: there is no such object"
    wider = contents(list_sources(join_sources([source], [f"{s3_root}/out/"])))
    assert wider[f"{s3_root}/out/o.mp4"] == sha(b"O")
    assert [wider[uri].partition(":")[0] for uri in uris[5:]] == ["not_allowed"] * 3


def test_a_list_here_names_objects_that_were_allowed(films: str, tmp_path: Path) -> None:
    bucket = bucket_of(films)
    uris = [f"{films}/a.mp4", f"s3://{bucket}-other/a.mp4", f"s3://{bucket}/elsewhere.mp4"]
    (tmp_path / "list.csv").write_text("\n".join(["uri", *uris]))
    found = contents(list_sources(join_sources([str(tmp_path / "list.csv")], [f"{films}/"])))
    assert [found[uri].partition(":")[0] for uri in uris] == [sha(b"A"), "not_allowed", "not_allowed"]


def test_what_is_missing_is_named(films: str) -> None:
    for source, said in (
        ("s3://nowhere-at-all/films", "there is no bucket nowhere-at-all"),
        ("s3://nowhere-at-all/list.csv", "there is no such object"),
        (f"{films}/none", "there is no object under the prefix"),
        (f"{films}/none.zip", "there is no such object"),
        ("s3:///films", "no bucket in the address"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            list_sources(source)
        assert caught.value.where == source


def test_denied_access_stops_the_run_and_names_the_object(films: str, tmp_path: Path) -> None:
    bucket = bucket_of(films)
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:GetObject", "s3:HeadObject"],
        "Resource": f"arn:aws:s3:::{bucket}/some/prefix/deep/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    boto3.client("s3").put_bucket_policy(Bucket=bucket, Policy=policy)
    rows = list_sources(films)
    assert rows[0].content_hash(max_bytes=MAX_BYTES) == sha(b"A")
    with pytest.raises(UserError, match="S3 refuses access: 403") as caught:
        rows[1].content_hash(max_bytes=MAX_BYTES)
    assert caught.value.where == f"{films}/deep/b.mp4"
    with pytest.raises(UserError, match="S3 refuses access") as caught:
        list_sources(f"{films}/deep/b.mp4")
    assert caught.value.where == f"{films}/deep/b.mp4"


def test_a_body_that_breaks_off_goes_on_where_it_was(films: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import IncompleteReadError

    read, breaks = StreamingBody.read, iter([False, True, False, True])

    def breaking(body: Any, amt: int | None = None) -> bytes:
        if next(breaks, False):
            raise IncompleteReadError(actual_bytes=0, expected_bytes=1)
        return read(body, min(amt or 1 << 30, 100_000))

    monkeypatch.setattr(StreamingBody, "read", breaking)
    rows = list_sources(films)
    assert rows[1].content_hash(max_bytes=MAX_BYTES) == sha(NOISE)


def test_an_object_over_the_bound_is_not_read(films: str, traffic: list[int]) -> None:
    with pytest.raises(MediaError, match="the file of 400000 bytes is over the 1000 bytes allowed"):
        list_sources(films)[1].content_hash(max_bytes=1000)
    assert not traffic


def test_a_server_that_does_not_answer_is_named(s3_environment: pytest.MonkeyPatch) -> None:
    s3_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot reach the S3 server") as caught:
        list_sources("s3://bucket/films")
    assert caught.value.where == "s3://bucket/films"
