"""Local copies: bounded, shared by processes, whole or not there, and never other bytes than asked for."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pytest

from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.media.sources.cache import LocalCopies
from share4video.media.sources.place import Place
from tests.media.sources.material import sha, write_archive

ROOT = Path(__file__).parents[3]


class Bytes(Place):
    """Bytes that lie nowhere in particular."""

    where = "bytes"  # type: ignore[assignment]

    def __init__(self, data: bytes, announced: int | None = None) -> None:
        self.data, self.announced, self.reads = data, announced, 0

    def size(self) -> int | None:
        return len(self.data) if self.announced is None else self.announced

    def fingerprint(self) -> str:
        return sha(self.data)

    def open(self, start: int = 0, length: int | None = None) -> BinaryIO:
        self.reads += 1
        return io.BytesIO(self.data)


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".lock")}


def files(count: int, size: int = 1000) -> list[Bytes]:
    return [Bytes(bytes([number]) * size) for number in range(count)]


def test_a_copy_is_made_once_and_found_by_its_content(tmp_path: Path) -> None:
    copies, place = LocalCopies(tmp_path / "c", 10_000), Bytes(b"film")
    for _ in range(3):
        with copies.held(sha(b"film"), place) as path:
            assert path.read_bytes() == b"film"
    assert place.reads == 1
    with LocalCopies(tmp_path / "c", 10_000).held(sha(b"film"), place):
        assert place.reads == 1


def test_other_bytes_than_asked_for_are_not_given(tmp_path: Path) -> None:
    copies = LocalCopies(tmp_path / "c", 10_000)
    with pytest.raises(MediaError, match="holds something else"), copies.held(sha(b"film"), Bytes(b"fake")):
        pass


def test_a_copy_that_was_damaged_is_made_again(tmp_path: Path) -> None:
    code = "import sys; open(sys.argv[1], 'wb').write(b'')"
    copies = LocalCopies(tmp_path / "c", 10_000)
    (tmp_path / "c" / sha(b"film")).write_bytes(b"filx")
    with copies.held(sha(b"film"), Bytes(b"film")) as path:
        assert path.read_bytes() == b"film"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    with copies.held(sha(b"film"), Bytes(b"film")) as path:
        assert path.read_bytes() == b"film"


def test_the_least_recently_used_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    copies = LocalCopies(tmp_path / "c", 3500)
    a, b, c, d, e = files(5)
    with copies.held(sha(a.data), a) as path:
        for place in (b, c):
            with copies.held(sha(place.data), place):
                pass
        with copies.held(sha(b.data), b):
            pass
        with copies.held(sha(d.data), d):  # c was used longest ago, apart from a, which is in use
            assert kept(tmp_path / "c") == {sha(x.data) for x in (a, b, d)}
        with copies.held(sha(e.data), e):
            assert kept(tmp_path / "c") == {sha(x.data) for x in (a, d, e)}
        assert path.read_bytes() == a.data


def test_what_does_not_fit_beside_what_is_in_use_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("share4video.media.sources.cache.WAIT_FOR_ROOM_S", 0.0)
    copies = LocalCopies(tmp_path / "c", 2500)
    with ExitStack() as held:
        a, b, c = files(3)
        for place in (a, b):
            held.enter_context(copies.held(sha(place.data), place))
        with pytest.raises(UserError, match="no room for a copy of 1000 bytes beside those in use"):
            held.enter_context(copies.held(sha(c.data), c))
    with copies.held(sha(c.data), c):
        assert len(kept(tmp_path / "c")) == 2
    with pytest.raises(UserError, match="larger than all local copies together may be, 2500 bytes"):
        held.enter_context(copies.added(Bytes(bytes(3000))))


def test_what_is_here_already_takes_no_room_twice(tmp_path: Path) -> None:
    copies, (film, other) = LocalCopies(tmp_path / "c", 2500), files(2)
    with copies.added(film), copies.added(film) as again:
        assert again.path.read_bytes() == film.data
        assert kept(tmp_path / "c") == {sha(film.data)}
        with copies.added(other) as beside:
            assert beside.path.read_bytes() == other.data


@pytest.mark.parametrize("announced", [0, 10, 5000])
def test_an_announced_size_is_not_believed(tmp_path: Path, announced: int) -> None:
    copies = LocalCopies(tmp_path / "c", 10_000)
    with copies.added(Bytes(b"x" * 3000, announced), 6000) as copy:
        assert (copy.bytes, copy.path.stat().st_size) == (3000, 3000)
        assert copy.content_hash == copy.path.name == sha(b"x" * 3000)
    with (
        pytest.raises(MediaError, match="is over the 2000 bytes allowed"),
        copies.added(Bytes(b"y" * 3000), 2000),
    ):
        pass
    assert kept(tmp_path / "c") == {sha(b"x" * 3000)}


def test_a_read_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    class Broken(Bytes):
        def open(self, start: int = 0, length: int | None = None) -> BinaryIO:
            raise MediaError("unreadable", "it is broken")

    with pytest.raises(MediaError, match="broken"), LocalCopies(tmp_path / "c", 9).added(Broken(b"x")):
        pass
    assert kept(tmp_path / "c") == set()


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path) -> None:
    copies = LocalCopies(tmp_path / "c", 3000)
    (tmp_path / "c" / ".partial-of-the-dead").write_bytes(bytes(2500))
    (place,) = files(1)
    with copies.held(sha(place.data), place):
        assert kept(tmp_path / "c") == {sha(place.data)}


MANY_AT_ONCE = """
import fcntl, hashlib, random, sys
from pathlib import Path
from share4video.media.sources import clip_file, list_sources
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)
def size(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a partial file that is not needed goes without the lock
        return 0
for _ in range(60):
    n = rng.randrange(12)
    data = bytes([n]) * 5000
    right = hashlib.sha256(data).hexdigest()
    clip = {"clip_id": "c", "source_uri": f"pack.zip/{n}.mp4", "content_hash": right}
    with clip_file(folder / "pack.zip", clip) as path:
        with (path.parent / ".lock").open("wb") as lock:  # nothing comes while it is counted
            fcntl.flock(lock, fcntl.LOCK_EX)
            held = sum(size(p) for p in path.parent.iterdir())
        assert held <= 21000, held
        assert path.read_bytes() == data
print("fine")
"""


def test_processes_share_a_folder_that_holds_four_of_twelve(tmp_path: Path, copies: Path) -> None:
    write_archive(tmp_path / "pack.zip", {f"{n}.mp4": bytes([n]) * 5000 for n in range(12)})
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SHARE4VIDEO_CACHE_BYTES": "21000"}
    command = [sys.executable, "-c", MANY_AT_ONCE, str(tmp_path)]
    children = [
        subprocess.Popen([*command, str(seed)], env=environment, stdout=subprocess.PIPE, text=True)
        for seed in range(3)
    ]
    assert [child.communicate()[0] for child in children] == ["fine\n"] * 3
    assert sum(path.stat().st_size for path in copies.iterdir()) <= 21_000


@pytest.mark.parametrize("announced", [0, 100_000])
def test_a_full_disk_is_said_and_what_was_finished_stays(tmp_path: Path, announced: int) -> None:
    """The kernel refuses bytes past a file's limit as it does those past a disk's end."""
    copies = LocalCopies(tmp_path / "c", 1 << 20)
    with copies.added(Bytes(b"A")):
        pass
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        said = "cannot write local copies: File too large"
        place = Bytes(bytes(100_000), announced)
        with pytest.raises(UserError, match=said) as caught, copies.added(place):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.where == str(tmp_path / "c")
    assert kept(tmp_path / "c") == {sha(b"A")}


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full_before_the_bound_is_reached(tiny_disk: Path) -> None:
    copies = LocalCopies(tiny_disk / "c", 1 << 20)
    with copies.added(Bytes(b"A")):
        pass
    said = "cannot write local copies: No space left on device"
    with pytest.raises(UserError, match=said), copies.added(Bytes(bytes(100_000))):
        pass
    assert kept(tiny_disk / "c") == {sha(b"A")}


def test_a_bound_that_is_no_number_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARE4VIDEO_CACHE_BYTES", "10 GB")
    with pytest.raises(UserError, match="not a number of bytes"):
        LocalCopies.of_environment()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SHARE4VIDEO_CACHE", str(tmp_path / "file" / "copies"))
    with pytest.raises(UserError, match="cannot write local copies: Not a directory"):
        LocalCopies.of_environment()


def test_a_copy_that_grew_past_its_announced_size_still_makes_others_go(tmp_path: Path) -> None:
    copies = LocalCopies(tmp_path / "c", 2500)
    for place in [Bytes(bytes([number]) * 1000, announced=0) for number in range(4)]:
        with copies.added(place):
            pass
    assert sum(path.stat().st_size for path in (tmp_path / "c").iterdir()) == 2000
