"""The store's promises, on a folder and on an S3 server."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from share4video.errors import UserError
from share4video.store import LocalStore, Store

BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    "a\\b",
    "a\0",
    "a\nb",
    ".tmp-a/b",
]

_step = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0\n\r", exclude_categories=("Cs",)),
    min_size=1,
    max_size=20,
).filter(lambda step: step not in (".", "..") and not step.startswith(".tmp-"))
_key = st.lists(_step, min_size=1, max_size=4).map("/".join)
# No key is another one's folder, which a file system cannot hold.
_contents = st.dictionaries(_key.map(lambda key: f"d/{key}.bin"), st.binary(max_size=300), max_size=6).filter(
    lambda contents: not any(a != b and b.startswith(f"{a}/") for a in contents for b in contents)
)


def _round_trip(store: Store, contents: dict[str, bytes]) -> None:
    for key in list(store.list("")):
        store.delete(key)
    for key, data in contents.items():
        store.put(key, b"earlier")
        store.put(key, data)
    assert list(store.list("")) == list(store.list("d")) == list(store.list("d/")) == sorted(contents)
    for key, data in contents.items():
        assert store.exists(key)
        assert store.get(key) == data
        assert store.size(key) == len(data)
        store.delete(key)
        store.delete(key)
        assert not store.exists(key)
    assert list(store.list("")) == []


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_contents)
def test_what_is_put_in_a_folder_is_what_is_got(store: LocalStore, contents: dict[str, bytes]) -> None:
    _round_trip(store, contents)


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_contents)
def test_what_is_put_in_s3_is_what_is_got(s3_store: Store, contents: dict[str, bytes]) -> None:
    _round_trip(s3_store, contents)


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_leaves_the_store_is_refused(any_store: Store, key: str) -> None:
    for use in (any_store.exists, any_store.get, any_store.delete, any_store.url):
        with pytest.raises(ValueError):
            use(key)
    with pytest.raises(ValueError):
        any_store.put(key, b"")
    with pytest.raises(ValueError):
        any_store.put_if_absent(key, b"")


def test_a_missing_key_is_a_key_error(any_store: Store, tmp_path: Path) -> None:
    any_store.put("folder/key", b"")
    for key in ("nothing", "folder", "folder/key/below"):
        assert not any_store.exists(key)
        with pytest.raises(KeyError):
            any_store.get(key)
        with pytest.raises(KeyError):
            any_store.size(key)
        with pytest.raises(KeyError):
            any_store.download(key, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_list_takes_a_folder_and_not_a_prefix_of_names(any_store: Store) -> None:
    for key in ("a/1", "a/b/2", "ab/3", "c"):
        any_store.put(key, b"")
    assert list(any_store.list("a")) == ["a/1", "a/b/2"]
    assert list(any_store.list("nothing")) == []


def test_large_files_are_streamed_whole(any_store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(1 << 20) * 20)  # several parts of a multipart upload
    any_store.upload(source, "large")
    any_store.download("large", target)
    assert target.read_bytes() == source.read_bytes()
    assert any_store.size("large") == 20 << 20


def test_the_first_put_if_absent_wins(any_store: Store) -> None:
    assert any_store.put_if_absent("key", b"first")
    assert not any_store.put_if_absent("key", b"second")
    assert not any_store.put_if_absent("key", b"first")
    assert any_store.get("key") == b"first"


RACERS, ROUNDS = 4, 60


def _race(root: str, racer: int, start_s: float) -> list[bool]:
    store = Store.open(root)
    time.sleep(max(0.0, start_s - time.time()))
    return [store.put_if_absent(f"race/{index}", f"racer {racer}".encode()) for index in range(ROUNDS)]


def test_one_process_wins_each_race_for_a_key(store: LocalStore) -> None:
    with multiprocessing.get_context("spawn").Pool(RACERS) as pool:
        start_s = time.time() + 3
        wins = pool.starmap(
            _race, [(str(store.root), racer, start_s) for racer in range(RACERS)], chunksize=1
        )
    for index in range(ROUNDS):
        winners = [racer for racer in range(RACERS) if wins[racer][index]]
        assert [f"racer {racer}".encode() for racer in winners] == [store.get(f"race/{index}")]
    assert len(list(store.list(""))) == len(list(store.root.rglob("*"))) - 1  # no temporary file is left


def test_a_killed_put_leaves_the_old_bytes_or_the_new(store: LocalStore) -> None:
    script = (
        "import sys; from share4video.store import Store; store = Store.open(sys.argv[1])\n"
        "while True:\n"
        "    for letter in b'ab': store.put('key', bytes([letter]) * 5_000_000); print('.', flush=True)\n"
    )
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", script, str(store.root)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.03)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert set(store.get("key")) in ({ord("a")}, {ord("b")})
        assert store.size("key") == 5_000_000
        assert list(store.list("")) == ["key"]


def test_files_are_readable_by_those_the_umask_allows(store: LocalStore) -> None:
    earlier = os.umask(0o022)
    try:
        store.put("key", b"")
    finally:
        os.umask(earlier)
    assert (store.root / "key").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_written_is_the_users_matter(store: LocalStore, tmp_path: Path) -> None:
    store.put("file", b"")
    with pytest.raises(UserError, match="cannot write to the store"):
        store.put("file/below", b"")
    with pytest.raises(UserError, match="cannot write to the store"):
        store.put_if_absent("file/below", b"")
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(UserError, match="cannot make the store folder"):
        Store.open(str(tmp_path / "taken"))


@pytest.mark.parametrize("root", ["gs://bucket/prefix", "http://host", "s3://", "s3:///prefix"])
def test_an_address_no_store_has_is_the_users_matter(root: str) -> None:
    with pytest.raises(UserError, match="store"):
        Store.open(root)


def test_urls_lead_back_to_the_key(store: LocalStore, s3_store: Store, s3_root: str) -> None:
    assert store.url("a/b") == str(store.root / "a" / "b")
    assert s3_store.url("a/b") == f"{s3_root}/a/b"
