"""A folder of good and bad files: every row is answered for, the same wherever the folder is."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from share4video.dataset.shards import Manifest, read_table
from share4video.errors import UserError
from share4video.media.guard import WorkerPool
from share4video.media.sources import list_sources
from share4video.stages.contract import StageResult
from share4video.stages.probe import ProbeInputs, run_stage
from share4video.store import LocalStore, Store
from tests.stages.probe_source import CONFIG, REASONS, everything


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


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no such folder or file"),
        ([], "there is no video in the folder"),
        (["a.txt", "b.json"], "there is no video in the folder"),
        (["a.md", "b.csv"], "there is no video in the source"),
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
