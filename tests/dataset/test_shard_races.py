"""Shard sets through kills and races: what is committed is whole, and computed by one."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from share4video.dataset.shards import read_file, read_table
from share4video.store import LocalStore, Store
from share4video.store_lock import LockLost
from tests.dataset.material import an_output, briefs

RUN = """
import os, signal, sys
from share4video.config import GateConfig
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.store import Store
output = ShardSet(Store.open(sys.argv[1]), "stage", "1", inputs=["a"], config=GateConfig())
computed = 0
for shard in range(2):
    with output.writing(shard, ttl_s=600) as done:  # longer than the test would wait
        if done is None:
            computed += 1
            output.attach(f"files/{shard}", bytes(100_000), shard)
            if shard == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            rows = [{"clip_id": str(shard), "caption": "a", "embedding": [0.5], "shift_s": None}]
            output.commit(shard, {"brief_captions": table_from_rows("brief_captions", rows)}, {"rows_in": 1})
print(computed, output.publish(2).ref)
"""


def _run(root: str, die_in: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, root, str(die_in)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90)


@pytest.mark.parametrize("die_in", [0, 1])
def test_a_run_killed_before_its_commit_goes_on(store: LocalStore, tmp_path: Path, die_in: int) -> None:
    undisturbed = _run(str(tmp_path / "other"), -1).stdout.split()
    assert undisturbed[0] == "2"
    assert _run(str(store.root), die_in).returncode == -signal.SIGKILL
    assert an_output(store).published() is None
    assert an_output(store).committed(die_in) is None
    computed, ref = _run(str(store.root), -1).stdout.split()  # the dead holder's lock is in nobody's way
    assert (int(computed), ref) == (2 - die_in, undisturbed[1])
    other = LocalStore(tmp_path / "other")
    assert list(store.list("stage")) == list(other.list("stage"))
    for key in store.list("stage"):
        assert store.get(key) == other.get(key)


def _contend(root: str) -> int:
    output = an_output(Store.open(root))
    computed = 0
    for shard in range(4):
        with output.writing(shard) as done:
            if done is None:
                computed += 1
                time.sleep(0.05)
                output.commit(shard, {"brief_captions": briefs(str(shard))})
    return computed


def test_a_shard_is_computed_by_one_of_those_who_want_it(store: LocalStore) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert sum(pool.map(_contend, [str(store.root)] * 3, chunksize=1)) == 4
    assert an_output(store).publish(4).rows("brief_captions") == 4


def test_a_writer_that_was_overtaken_writes_nothing_more(any_store: Store) -> None:
    slow, quick = an_output(any_store), an_output(any_store)
    with slow.writing(0):
        slow.attach("file", b"slow")
        key = next(iter(any_store.list("locks")))
        any_store.put(key, b'{"expires_s": 0}')  # as if it had slept past its time
        with quick.writing(0) as done:
            assert done is None
            with pytest.raises(LockLost):
                slow.attach("file", b"late")
            with pytest.raises(LockLost):
                slow.commit(0, {"brief_captions": briefs("slow")})
            quick.attach("file", b"quick")
            quick.commit(0, {"brief_captions": briefs("quick")})
        earlier = slow.commit(0, {"brief_captions": briefs("slow")})
    assert earlier == quick.committed(0)
    ref = quick.publish(1).ref
    assert read_file(any_store, ref, "file") == b"quick"
    assert read_table(any_store, ref, "brief_captions")["clip_id"].to_pylist() == ["quick"]
