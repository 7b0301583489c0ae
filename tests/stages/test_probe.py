"""A folder of good and bad files: every row is answered for, the same wherever the folder is."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from share4video.config import ProbeConfig
from share4video.dataset.shards import Manifest, ShardSet, load_manifest, read_table
from share4video.errors import UserError
from share4video.media.guard import WorkerPool
from share4video.media.sources import list_sources
from share4video.stages import probe, scan
from share4video.stages.contract import StageResult
from share4video.stages.probe import ProbeInputs, finish, plan, run_shard, run_stage
from share4video.stages.scan import ScanShard
from share4video.store import LocalStore, Store
from tests.media.clips import write_clip

CONFIG = ProbeConfig(min_duration_s=1, max_duration_s=4, min_height=48, licence="CC0")
STILL = np.full((64, 96, 3), 90, np.uint8)
STILL[10:30, 10:30] = (250, 120, 30)


@pytest.fixture(scope="session")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two good clips and one file for every reason."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "deep" / "er").mkdir(parents=True)
    write_clip(folder / "good.mp4", frames=40)
    write_clip(folder / "deep" / "er" / "good.webm", codec="libvpx", frames=30, width=64, height=96)
    shutil.copy(folder / "good.mp4", folder / "zz-again.mp4")
    write_clip(folder / "long.mp4", frames=60, fps=10)
    write_clip(folder / "short.mp4", frames=10)
    write_clip(folder / "small.mp4", frames=30, width=64, height=32)
    write_clip(folder / "wide.mp4", frames=30, width=320, height=64)
    write_clip(folder / "slow.mp4", frames=6, fps=2)
    write_clip(folder / "black.mp4", frames=30, still=np.full((64, 96, 3), 10, np.uint8))
    write_clip(folder / "blue.mp4", frames=30, still=np.full((64, 96, 3), (20, 60, 190), np.uint8))
    write_clip(folder / "still.mp4", frames=30, still=STILL)
    data = (folder / "good.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    shutil.copy(folder / "cut.mp4", folder / "cut-too.mp4")
    (folder / "README.md").write_text("what these clips are")
    (folder / "good.truth.json").write_text("{}")
    (folder / "notes.TXT").write_text("ignored")
    return folder


REASONS = {
    "too_long": 1,
    "too_short": 1,
    "too_small": 1,
    "too_wide": 1,
    "low_fps": 1,
    "black": 1,
    "single_colour": 1,
    "frozen": 1,
    "truncated": 2,
    "not_video": 1,
    "exact_duplicate": 1,
}


def tables(store: Store, result: StageResult) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    clips, rejects = (read_table(store, result.ref, name).to_pylist() for name in ("clips", "rejects"))
    return clips, rejects


def test_every_row_becomes_a_clip_or_a_reject(master: Path, store: LocalStore) -> None:
    result = run_stage(ProbeInputs(str(master)), CONFIG, store)
    clips, rejects = tables(store, result)
    assert result.rejects == REASONS
    assert (result.rows_in, result.rows_out, len(clips), len(rejects)) == (14, 2, 2, 12)
    names = [row["source_uri"] for row in (*clips, *rejects)]
    assert sorted(names) == [file.uri for file in list_sources(str(master))]
    assert len({row["row_id"] for row in (*clips, *rejects)}) == 14
    webm, good = clips
    assert (webm["source_uri"], good["source_uri"]) == ("deep/er/good.webm", "good.mp4")
    assert (good["start_s"], good["end_s"], good["duration_s"], good["fps"]) == (0, 2, 2, 20)
    assert (webm["width"], webm["height"], webm["codec"], webm["licence"]) == (64, 96, "vp8", "CC0")
    assert result.metrics == {"files": 14, "kept_s": pytest.approx(3.5, abs=0.01)}
    (duplicate,) = (row for row in rejects if row["reason"] == "exact_duplicate")
    assert (duplicate["source_uri"], duplicate["sentence"]) == (
        "zz-again.mp4",
        "the same content as good.mp4",
    )


def test_a_second_run_finds_everything_there(master: Path, store: LocalStore) -> None:
    first = run_stage(ProbeInputs(str(master)), CONFIG, store)
    second = run_stage(ProbeInputs(str(master)), CONFIG, store)
    assert (first.computed_shards, second.computed_shards) == (2, 0)
    assert second.unchanged
    assert (second.ref, second.rejects) == (first.ref, first.rejects)


def test_the_output_does_not_depend_on_where_the_folder_is(master: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where" / "folder"
    shutil.copytree(master, elsewhere)
    stores = [LocalStore(tmp_path / "a"), LocalStore(tmp_path / "b")]
    first, second = (
        run_stage(ProbeInputs(source), CONFIG, store)
        for source, store in zip((str(master), f"{elsewhere}/"), stores, strict=True)
    )
    assert first.ref == second.ref
    contents = [{key: store.get(key) for key in store.list(first.ref.prefix)} for store in stores]
    assert contents[0] == contents[1] and contents[0]


def test_a_change_of_content_or_name_is_another_output(
    master: Path, store: LocalStore, tmp_path: Path
) -> None:
    shutil.copytree(master, tmp_path / "copy")
    first = run_stage(ProbeInputs(str(tmp_path / "copy")), CONFIG, store)
    (tmp_path / "copy" / "good.mp4").rename(tmp_path / "copy" / "better.mp4")
    second = run_stage(ProbeInputs(str(tmp_path / "copy")), CONFIG, store)
    assert first.ref.key != second.ref.key
    ids = [{row["source_uri"]: row["clip_id"] for row in tables(store, r)[0]} for r in (first, second)]
    assert ids[0]["good.mp4"] == ids[1]["better.mp4"]


def test_a_single_file_is_a_source(master: Path, store: LocalStore) -> None:
    result = run_stage(ProbeInputs(str(master / "good.mp4")), CONFIG, store)
    (clip,), rejects = tables(store, result)
    assert (clip["source_uri"], rejects) == ("good.mp4", [])


def test_progress_counts_up_to_the_number_of_files(master: Path, store: LocalStore) -> None:
    seen: list[tuple[str, int, int]] = []
    run_stage(ProbeInputs(str(master)), CONFIG, store, progress=lambda *event: seen.append(event))
    probed = [done for label, done, _ in seen if label.endswith(", files probed")]
    assert probed == sorted(probed) and probed[-1] == 14
    assert {total for _, _, total in seen} == {14}


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


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no such folder or file"),
        ([], "there is no video in the folder"),
        (["a.txt", "b.json"], "there is no video in the folder"),
        (["a.md", "b.csv"], "there is no video in the folder"),
    ],
)
def test_a_folder_without_video(
    tmp_path: Path, store: LocalStore, files: list[str] | None, message: str
) -> None:
    source = tmp_path / "source"
    if files is not None:
        source.mkdir()
        for name in files:
            (source / name).write_text("text")
    with pytest.raises(UserError, match=message) as caught:
        run_stage(ProbeInputs(str(source)), CONFIG, store)
    assert caught.value.where == str(source)


def test_a_folder_of_which_nothing_is_kept(master: Path, store: LocalStore, tmp_path: Path) -> None:
    source = tmp_path / "bad"
    source.mkdir()
    for name in ("cut.mp4", "cut-too.mp4", "short.mp4"):
        shutil.copy(master / name, source / name)
    for _ in range(2):  # the second run finds the published rejects, and says the same
        with pytest.raises(UserError, match="none of 3 files became a clip, 2 of them rejected as truncated"):
            run_stage(ProbeInputs(str(source)), CONFIG, store)


def test_odd_names_and_dead_links_are_rows_too(master: Path, store: LocalStore, tmp_path: Path) -> None:
    source = tmp_path / "odd"
    source.mkdir()
    shutil.copy(master / "good.mp4", source / "new\nline.MOV")
    shutil.copy(master / "good.mp4", os.fsencode(source) + b"/caf\xe9.mp4")
    (source / "empty").touch()
    (source / "link.mp4").symlink_to(master / "short.mp4")
    (source / "dead.mp4").symlink_to(source / "nowhere.mp4")
    (source / "folder").symlink_to(source)
    result = run_stage(ProbeInputs(str(source)), CONFIG, store)
    clips, rejects = tables(store, result)
    assert [row["source_uri"] for row in clips] == ["new\nline.MOV"]
    assert {row["source_uri"]: row["reason"] for row in rejects} == {
        "caf\\xe9.mp4": "unreadable",
        "dead.mp4": "unreadable",
        "empty": "not_video",
        "link.mp4": "too_short",
    }


def test_oversized_files_are_not_even_read(master: Path, store: LocalStore) -> None:
    small = CONFIG.model_copy(update={"max_file_bytes": (master / "good.mp4").stat().st_size})
    result = run_stage(ProbeInputs(str(master)), small, store)
    assert result.rows_out >= 1
    assert result.rejects["too_large"] >= 1


def test_another_bound_decodes_nothing(
    master: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the child processes are asked for is counted; they do all decoding."""
    asked: list[str] = []
    call = WorkerPool.call

    def counting(pool: WorkerPool, operation: str, *rest: Any) -> Any:
        asked.append(operation)
        return call(pool, operation, *rest)

    monkeypatch.setattr(WorkerPool, "call", counting)
    run_stage(ProbeInputs(str(master)), CONFIG, store)
    assert len(asked) == 12  # 14 files: two of them hold what another holds, one of each is decoded
    asked.clear()
    bounds = {"max_duration_s": 10.0, "min_fps": 1.0, "max_frozen_share": None, "max_black_share": None}
    loose = CONFIG.model_copy(update={**bounds, "max_single_colour_share": None, "min_height": 16})
    result = run_stage(ProbeInputs(str(master)), loose, store)
    assert result.rejects == {
        **dict.fromkeys(("too_short", "too_wide", "not_video", "exact_duplicate"), 1),
        "truncated": 2,
    }
    assert result.rows_out == 8
    assert asked == []
    run_stage(ProbeInputs(str(master)), CONFIG.model_copy(update={"decode_timeout_s": 30.0}), store)
    assert asked  # how it was measured is another matter


def test_of_equal_files_the_first_is_kept_whatever_the_order(master: Path, tmp_path: Path) -> None:
    """Folders are listed in the order their files were made on many systems."""
    names = sorted(path.relative_to(master) for path in master.rglob("*") if path.is_file())
    random.Random(3).shuffle(names)
    shuffled = tmp_path / "shuffled"
    for name in names:
        (shuffled / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(master / name, shuffled / name)
    first, second = LocalStore(tmp_path / "a"), LocalStore(tmp_path / "b")
    assert (
        run_stage(ProbeInputs(str(master)), CONFIG, first).ref
        == run_stage(ProbeInputs(str(shuffled)), CONFIG, second).ref
    )
    assert everything(first) == everything(second)


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


@pytest.mark.parametrize("what", ["gone", "another"])
def test_a_file_that_changes_while_it_is_scanned_takes_no_copy_along(
    master: Path, store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(scan, "ROWS_PER_CHUNK", 1)
    source = tmp_path / "films"
    source.mkdir()
    for name in ("a.mp4", "z.mp4"):
        shutil.copy(master / "good.mp4", source / name)

    def change(label: str, done: int, total: int) -> None:
        if label.endswith("files read") and done == total:
            (source / "a.mp4").unlink()
            if what == "another":
                shutil.copy(master / "blue.mp4", source / "a.mp4")

    result = run_stage(ProbeInputs(str(source)), CONFIG, store, change)
    (clip,) = read_table(store, result.ref, "clips").to_pylist()
    (reject,) = read_table(store, result.ref, "rejects").to_pylist()
    assert clip["source_uri"] == "z.mp4"
    assert (reject["source_uri"], reject["reason"]) == ("a.mp4", "unreadable")


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


def test_too_many_failures_fail_the_stage(master: Path, store: LocalStore, tmp_path: Path) -> None:
    source = tmp_path / "damaged"
    source.mkdir()
    for name in ("good.mp4", "short.mp4", "cut.mp4", "cut-too.mp4"):
        shutil.copy(master / name, source / name)
    inputs = ProbeInputs(str(source))
    assert run_stage(inputs, CONFIG, store).rejects == {"too_short": 1, "truncated": 2}
    strict = CONFIG.model_copy(update={"max_failed_share": 0.4})
    for _ in range(2):  # the second run finds the published rejects, and says the same
        with pytest.raises(
            UserError, match="2 of 4 rows failed, over the 40% allowed, 2 of them as truncated"
        ) as e:
            run_stage(inputs, strict, store)
        assert "cut-too.mp4: the file" in e.value.fix
    key = {key.split("/")[1] for key in store.list("probe") if key.endswith("manifest.json")}
    assert len(key) == 1  # what was found out is published either way, and once


def test_longer_than_is_scanned_is_told_from_the_header(master: Path, store: LocalStore) -> None:
    short = CONFIG.model_copy(update={"scan_up_to_s": 4.0})
    assert run_stage(ProbeInputs(str(master)), short, store).rejects == REASONS
    (key,) = (key for key in store.list("scan") if key.endswith("manifest.json"))
    manifest = Manifest.model_validate_json(store.get(key))
    scans = {row["source_uri"]: row for row in read_table(store, manifest.ref, "scans").to_pylist()}
    assert len(scans) == 14
    assert (scans["long.mp4"]["duration_s"], scans["long.mp4"]["frames"]) == (6, None)
    assert (scans["good.mp4"]["duration_s"], scans["good.mp4"]["frames"]) == (2, 40)
    assert (scans["cut.mp4"]["duration_s"], scans["cut.mp4"]["reason"]) == (None, "truncated")


def everything(store: LocalStore) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("") if not key.startswith("locks/")}
