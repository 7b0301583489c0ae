"""Locks: one holder at a time, no waiting for the dead, and no writing under a token that was overtaken."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading
import time

import pytest

from share4video import store_lock
from share4video.store import LocalStore, Store
from share4video.store_lock import LockLost

HOLD = """
import sys, time
from share4video.store import Store
store = Store.open(sys.argv[1])
with store.lock("locks/a", ttl_s=float(sys.argv[2])) as token:
    print(token, flush=True)
    sys.stdin.readline()
    store.check_token("locks/a", token)
    print("still mine", flush=True)
"""


def _holder(root: str, ttl_s: float) -> subprocess.Popen[str]:
    """Start a process that holds the lock until it is sent a line; return once it has it."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, root, str(ttl_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert int(holder.stdout.readline()) >= 1
    return holder


def test_every_holder_gets_a_higher_token(any_store: Store) -> None:
    tokens = []
    for _ in range(4):
        with any_store.lock("locks/a") as token:
            tokens.append(token)
            any_store.check_token("locks/a", token)
    assert tokens == [1, 2, 3, 4]
    assert list(any_store.list("locks/a")) == ["locks/a/00000004"]  # old records are cleared away
    with pytest.raises(LockLost):
        any_store.check_token("locks/a", 3)


def test_a_lock_is_free_after_an_exception(any_store: Store) -> None:
    with pytest.raises(ZeroDivisionError), any_store.lock("locks/a"):
        _ = 1 / 0
    with any_store.lock("locks/a") as token:
        assert token == 2


def _count(root: str) -> None:
    store = Store.open(root)
    for _ in range(4):
        with store.lock("locks/count", ttl_s=2):
            value = int(store.get("count"))
            time.sleep(0.01)
            store.put("count", str(value + 1).encode())


def test_processes_take_turns(store: LocalStore) -> None:
    store.put("count", b"0")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(_count, [str(store.root)] * 3, chunksize=1)
    assert store.get("count") == b"12"
    assert store_lock.current_token(store, "locks/count") == 12


def test_threads_take_turns_on_s3(s3_store: Store) -> None:
    inside: list[int] = []

    def work() -> None:
        with s3_store.lock("locks/a", ttl_s=1):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert store_lock.current_token(s3_store, "locks/a") == 4


def test_a_holder_killed_on_this_host_frees_the_lock_at_once(store: LocalStore) -> None:
    holder = _holder(str(store.root), ttl_s=600)
    holder.send_signal(signal.SIGKILL)  # and not waited for: a zombie counts as dead
    started = time.monotonic()
    with store.lock("locks/a", ttl_s=600) as token:
        assert token == 2
    assert time.monotonic() - started < 60
    holder.communicate()


def test_a_holder_that_died_elsewhere_frees_the_lock_after_its_time(
    any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = store_lock.Holder(owner="x", host="elsewhere/1/2", pid=1, expires_s=time.time() + 1.5)
    any_store.put("locks/a/00000007", elsewhere.model_dump_json().encode())
    started = time.monotonic()
    with any_store.lock("locks/a", ttl_s=60) as token:
        assert token == 8
    assert 1 < time.monotonic() - started < 30


def test_a_living_holder_renews_and_is_waited_for(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    holder = _holder(str(store.root), ttl_s=1.5)
    taken: list[int] = []

    def contend() -> None:
        with store.lock("locks/a", ttl_s=1.5) as token:
            taken.append(token)

    contender = threading.Thread(target=contend)
    contender.start()
    time.sleep(3.5)
    assert taken == []
    out, _ = holder.communicate("\n")
    assert "still mine" in out
    contender.join(timeout=60)
    assert taken == [2]
    assert f"waiting for process {holder.pid}" in caplog.text


def test_a_holder_that_slept_past_its_time_is_overtaken_and_finds_out(store: LocalStore) -> None:
    holder = _holder(str(store.root), ttl_s=1)
    holder.send_signal(signal.SIGSTOP)
    with store.lock("locks/a", ttl_s=60) as token:
        assert token == 2
        holder.send_signal(signal.SIGCONT)
        out, errors = holder.communicate("\n")
        assert "still mine" not in out
        assert "LockLost" in errors
        store.check_token("locks/a", token)  # the late release of the first holder changed nothing
    with store.lock("locks/a") as token:
        assert token == 3
    assert list(store.list("locks/a")) == ["locks/a/00000003"]


def test_one_missed_renewal_does_not_end_the_work(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put, beats = store.put, []

    def flaky(key: str, data: bytes) -> None:
        beats.append(key)
        if len(beats) == 1:
            raise OSError("the network blinked")
        put(key, data)

    with store.lock("locks/a", ttl_s=0.6) as token:
        monkeypatch.setattr(store, "put", flaky)
        time.sleep(0.7)
        store.check_token("locks/a", token)
    assert len(beats) >= 2  # the one that failed, and the release at least
    assert "the network blinked" in caplog.text
