"""Members of archives are read one by one, and nothing an archive says of itself is believed."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.media.sources import clip_file, list_sources
from tests.media.sources.material import MAX_BYTES, contents, sha, write_archive, write_files

NOISE = random.Random(0).randbytes(300_000)


def encrypted(path: Path, member: str) -> None:
    """Mark a member as encrypted, in its header and in the directory."""
    data = bytearray(path.read_bytes())
    for signature, flags, name in ((b"PK\x03\x04", 6, 30), (b"PK\x01\x02", 8, 46)):
        at = data.find(signature)
        while at >= 0 and data[at + name : at + name + len(member)] != member.encode():
            at = data.find(signature, at + 1)
        data[at + flags] |= 1
    path.write_bytes(data)


def test_archives_in_a_folder_and_archives_beside_each_other(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.mp4": b"A"})
    write_archive(tmp_path / "one.zip", {"x.mp4": NOISE, "deep/y.mp4": b"Y", "y.txt": b"-"})
    write_archive(tmp_path / "more" / "two.ZIP", {"x.mp4": b"X"}, zipfile.ZIP_STORED)
    found = {
        "a.mp4": sha(b"A"),
        "more/two.ZIP/x.mp4": sha(b"X"),
        "one.zip/deep/y.mp4": sha(b"Y"),
        "one.zip/x.mp4": sha(NOISE),
    }
    assert contents(list_sources(str(tmp_path))) == {**found}
    assert contents(list_sources(f"{tmp_path}/*.zip")) == {
        uri: value for uri, value in found.items() if uri.startswith("one")
    }


def test_a_clip_in_an_archive_is_given_as_a_file_with_its_bytes(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "one.zip", {"x.mp4": NOISE})
    clip = {"clip_id": "abc", "source_uri": "one.zip/x.mp4", "content_hash": sha(NOISE)}
    for source in (archive, tmp_path):
        with clip_file(source, clip) as path:
            assert path.read_bytes() == NOISE
    write_archive(archive, {"x.mp4": b"replaced"})
    probed = {**clip, "content_hash": sha(b"what was probed")}
    said = "clip abc as it was probed, the file of this name holds"
    with pytest.raises(UserError, match=said), clip_file(archive, probed):
        pass
    write_archive(archive, {"other.mp4": b""})
    with pytest.raises(UserError, match="holds no such file") as caught, clip_file(archive, probed):
        pass
    assert caught.value.where == "one.zip/x.mp4"


def test_damage_in_the_middle_costs_one_member(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "one.zip", {f"{n}.mp4": NOISE[n:] for n in range(3)})
    data = bytearray(archive.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    archive.write_bytes(data)
    found = contents(list_sources(str(archive)))
    assert found == {
        "one.zip/0.mp4": sha(NOISE),
        "one.zip/1.mp4": "unreadable: the file is damaged in its archive",
        "one.zip/2.mp4": sha(NOISE[2:]),
    }


def test_an_archive_without_its_directory(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "films" / "one.zip", {"x.mp4": NOISE})
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(UserError, match="no zip archive, or its directory is damaged") as caught:
        list_sources(str(archive))
    assert caught.value.where == str(archive)
    write_files(archive.parent, {"a.mp4": b"A"})
    found = contents(list_sources(str(archive.parent)))  # the other files of a folder go on
    assert found["a.mp4"] == sha(b"A")
    assert found["one.zip"].startswith("unreadable: this is no zip archive")


def test_an_empty_archive_is_answered_for(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "one.zip", {"read.txt": b"-"})
    with pytest.raises(UserError, match="there is no video in the archive"):
        list_sources(str(archive))
    write_files(tmp_path, {"a.mp4": b"A"})
    assert contents(list_sources(str(tmp_path)))["one.zip"] == "not_video: there is no video in the archive"


def test_members_that_cannot_be_read_are_refused_one_by_one(tmp_path: Path) -> None:
    archive = tmp_path / "one.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for name in ("fine.mp4", "locked.mp4", "twice.mp4", "../out.mp4", "/root.mp4", "empty.mp4"):
            made.writestr(name, b"" if name == "empty.mp4" else name.encode())
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr("twice.mp4", b"again")
        made.writestr("packed.mp4", NOISE, zipfile.ZIP_BZIP2)
    encrypted(archive, "locked.mp4")
    rows = list_sources(str(archive))
    assert len(rows) == 8
    assert contents(rows) == {
        "one.zip/../out.mp4": "not_allowed: the name leads out of the source",
        "one.zip//root.mp4": "not_allowed: the name leads out of the source",
        "one.zip/empty.mp4": "not_video: the file is empty",
        "one.zip/fine.mp4": sha(b"fine.mp4"),
        "one.zip/locked.mp4": "encrypted: the file is encrypted in its archive",
        "one.zip/packed.mp4": "unreadable: the file is neither stored nor deflated in its archive",
        "one.zip/twice.mp4": "unreadable: the archive holds this name more than once",
    }
    assert len({row.row_id for row in rows}) == 8


def test_a_bomb_is_stopped_whatever_its_header_says(tmp_path: Path, copies: Path) -> None:
    archive = write_archive(tmp_path / "bomb.zip", {"zeros.mp4": bytes(50 * MAX_BYTES)})
    assert archive.stat().st_size < MAX_BYTES // 10
    (row,) = list_sources(str(archive))
    with pytest.raises(MediaError, match="is over the 1048576 bytes allowed") as caught:
        row.content_hash(max_bytes=MAX_BYTES)
    assert (caught.value.reason, caught.value.measured) == ("too_large", 50.0 * MAX_BYTES)
    data = archive.read_bytes()
    for said in (3, 2 * MAX_BYTES):  # a size that is not true, below and above the bound
        lie = data.replace(struct.pack("<I", 50 * MAX_BYTES), struct.pack("<I", said))
        assert lie != data
        archive.write_bytes(lie)
        (row,) = list_sources(str(archive))
        with pytest.raises(MediaError) as caught:
            row.content_hash(max_bytes=MAX_BYTES)
        assert caught.value.reason in ("unreadable", "too_large")
    assert not list(copies.glob("[!.]*"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 400),
)
def test_damage_never_gives_other_bytes(tmp_path: Path, flips: list[tuple[int, int]], cut: int) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for number in range(3):
            made.writestr(f"{number}.mp4", bytes([number]) * 500 + NOISE[:500])
    right = {sha(bytes([number]) * 500 + NOISE[:500]) for number in range(3)}
    data = bytearray(target.getvalue())
    for at, change in flips:
        data[at % len(data)] ^= change
    archive = tmp_path / "one.zip"
    archive.write_bytes(data[: len(data) - cut] if cut < 100 else data)
    try:
        found = contents(list_sources(str(archive)))
    except UserError:
        return
    assert found
    for value in found.values():
        assert value in right or ": " in value
