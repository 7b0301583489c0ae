"""The probe stage interrupted, killed, divided among tasks: the same bytes in the end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from share4video.dataset.shards import ShardSet, load_manifest, read_table
from share4video.errors import UserError
from share4video.stages import probe, scan
from share4video.stages.probe import ProbeInputs, finish, plan, run_shard, run_stage
from share4video.stages.scan import ScanShard
from share4video.store import LocalStore
from tests.stages.probe_source import CONFIG, REASONS, everything


def test_an_interrupted_run_goes_on(
    master: Path, store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "ROWS_PER_SHARD", 5)
    monkeypatch.setattr(scan, "ROWS_PER_CHUNK", 4)
    whole = run_stage(ProbeInputs(str(master)), CONFIG, LocalStore(tmp_path / "undisturbed"))
    assert (whole.computed_shards, whole.total_shards) == (7, 7)
    commit = ShardSet.commit

    for stage, last in (("scan", 2), ("probe", 1)):

        def dying(output: ShardSet, shard: int, *rest: Any, stage: str = stage, last: int = last) -> Any:
            if (output.stage, shard) == (stage, last):
                raise KeyboardInterrupt
            return commit(output, shard, *rest)

        monkeypatch.setattr(ShardSet, "commit", dying)
        with pytest.raises(KeyboardInterrupt):
            run_stage(ProbeInputs(str(master)), CONFIG, store)
        monkeypatch.setattr(ShardSet, "commit", commit)
    again = run_stage(ProbeInputs(str(master)), CONFIG, store)
    assert again.computed_shards == 2  # of the seven; the others are kept
    assert again.ref == whole.ref
    assert again.rejects == REASONS
    assert load_manifest(store, again.ref).rows("clips") == 2


@pytest.mark.parametrize("shards", [1, 2, 3, 100])
def test_the_number_of_shards_changes_no_byte(
    master: Path, store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    monkeypatch.setattr(scan, "ROWS_PER_CHUNK", 3)
    inputs, config = ProbeInputs(str(master)), CONFIG.model_copy(update={"shards": shards})
    whole = LocalStore(tmp_path / "whole")
    result = run_stage(inputs, CONFIG, whole)
    parts = [ScanShard.parse(str(part)) for part in plan(inputs, config)]
    assert [part.number for part in parts] == list(range(min(shards, 5)))
    assert [part.first for part in parts] == [0, *(part.end for part in parts[:-1])]
    random.Random(shards).shuffle(parts)
    for part in parts[1:]:
        run_shard(inputs, config, store, part)
    with pytest.raises(RuntimeError, match="not committed"):
        finish(inputs, config, store, parts)
    assert run_shard(inputs, config, store, parts[0]) > 0
    assert run_shard(inputs, config, store, parts[0]) == 0  # tried again
    published = finish(inputs, config, store, parts)
    assert (published.ref, published.computed_shards) == (result.ref, None)
    assert everything(store) == everything(whole)
    assert finish(inputs, config, store, parts).unchanged
    assert run_stage(inputs, config, store).unchanged


def test_a_source_that_changes_after_the_plan_is_found_out(
    master: Path, store: LocalStore, tmp_path: Path
) -> None:
    source = tmp_path / "moving"
    shutil.copytree(master, source)
    inputs = ProbeInputs(str(source))
    (part,) = plan(inputs, CONFIG)
    shutil.copy(master / "good.mp4", source / "short.mp4")
    with pytest.raises(UserError, match="the source changed while it was scanned"):
        run_shard(inputs, CONFIG, store, part)
    assert not list(store.list("scan"))
    shutil.copy(master / "short.mp4", source / "short.mp4")
    run_shard(inputs, CONFIG, store, part)
    assert finish(inputs, CONFIG, store, [part]).rejects == REASONS


@pytest.mark.parametrize("rows_per_chunk", [1, 32])
@pytest.mark.parametrize(("changed", "stays"), [("a.mp4", "z.mp4"), ("z.mp4", "a.mp4")])
@pytest.mark.parametrize("what", ["gone", "another"])
def test_a_file_that_changes_while_it_is_scanned_takes_no_copy_along(
    master: Path,
    store: LocalStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows_per_chunk: int,
    changed: str,
    stays: str,
    what: str,
) -> None:
    monkeypatch.setattr(scan, "ROWS_PER_CHUNK", rows_per_chunk)
    source = tmp_path / "films"
    source.mkdir()
    for name in (changed, stays):
        shutil.copy(master / "good.mp4", source / name)

    def change(label: str, done: int, total: int) -> None:
        if label.endswith("files read") and done == total:
            (source / changed).unlink()
            if what == "another":
                shutil.copy(master / "blue.mp4", source / changed)

    result = run_stage(ProbeInputs(str(source)), CONFIG, store, change)
    (clip,) = read_table(store, result.ref, "clips").to_pylist()
    (reject,) = read_table(store, result.ref, "rejects").to_pylist()
    assert clip["source_uri"] == stays
    # The second of a chunk is not opened for what the first was found to hold.
    opened = changed == "a.mp4" or rows_per_chunk == 1
    assert (reject["source_uri"], reject["reason"]) == (
        changed,
        "unreadable" if opened else "exact_duplicate",
    )


KILLED_AMID_THE_SCAN = """
import os, signal, sys
from share4video.config import ProbeConfig
from share4video.stages import scan
from share4video.stages.probe import ProbeInputs, run_stage
from share4video.store import Store

def progress(label, done, total):
    if label.endswith("files probed") and done == 9:  # the third chunk of four files has begun
        os.kill(os.getpid(), signal.SIGKILL)

scan.ROWS_PER_CHUNK = 4
root, source, config = sys.argv[1:]
run_stage(ProbeInputs(source), ProbeConfig.model_validate_json(config), Store.open(root), progress)
"""


def test_a_killed_scan_goes_on_where_it_was(
    master: Path, store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(store.root), str(master), CONFIG.model_dump_json()]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AMID_THE_SCAN, *arguments],
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    monkeypatch.setattr(scan, "ROWS_PER_CHUNK", 4)
    result = run_stage(ProbeInputs(str(master)), CONFIG, store)
    assert (result.computed_shards, result.total_shards) == (3, 5)  # two chunks of four are there
    undisturbed = LocalStore(tmp_path / "undisturbed")
    run_stage(ProbeInputs(str(master)), CONFIG, undisturbed)
    assert everything(store) == everything(undisturbed)
