"""Where checkpoints come from and go to: kills, races, taken places, S3."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from share4video.errors import UserError
from share4video.models.llava_next.convert import convert
from share4video.models.transformers_server import check_tensor_names
from share4video.store import Store
from tests.models.llava_next.tiny import edit_config, weights


def convert_and_die(source: str, destination: str) -> None:
    """Kill this process the moment half of the weights is written."""

    def tell(label: str, done: int, total: int) -> None:
        if label == "converting" and 2 * done > total:
            os.kill(os.getpid(), signal.SIGKILL)

    convert(source, destination, max_shard_bytes=60_000, progress=tell)


def killed(source: str, destination: str) -> bool:
    """Whether a process that converts was killed amid it."""
    child = multiprocessing.get_context("fork").Process(target=convert_and_die, args=(source, destination))
    child.start()
    child.join(120)
    return child.exitcode == -signal.SIGKILL


@pytest.fixture(autouse=True)
def own_work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHARE4VIDEO_WORK", str(tmp_path / "work"))
    return tmp_path / "work"


def same(one: Path, other: Path) -> None:
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes(), file.name


def test_a_killed_conversion_leaves_nothing_under_its_name_and_runs_again(
    original: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "model"
    assert killed(str(original), str(target))
    assert not target.exists()
    convert(original, target, max_shard_bytes=60_000)
    assert [p.name for p in target.parent.iterdir()] == ["model"]
    convert(original, tmp_path / "other", max_shard_bytes=60_000)
    same(target, tmp_path / "other")


def test_a_finished_conversion_is_left_alone(original: Path, tmp_path: Path) -> None:
    assert not convert(original, tmp_path / "out").finished_before
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    assert convert(original, tmp_path / "out").finished_before
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == before


def test_another_conversion_is_not_written_over(original: Path, tmp_path: Path) -> None:
    convert(original, tmp_path / "out")
    with pytest.raises(UserError, match="another conversion"):
        convert(original, tmp_path / "out", dtype="bfloat16")
    edit_config(original, rope_theta=10000.0)
    with pytest.raises(UserError, match="another conversion"):
        convert(original, tmp_path / "out")


def test_what_is_there_is_not_written_over(original: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for taken in ("full", "file", "original"):
        with pytest.raises(UserError, match="something else already"):
            convert(original, tmp_path / taken)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    convert(original, tmp_path / "empty")
    check_tensor_names(str(tmp_path / "empty"))


def test_two_conversions_to_one_place_do_not_mix(original: Path, tmp_path: Path) -> None:
    refused: list[str] = []

    def second(label: str, done: int, total: int) -> None:
        if label == "converting" and not refused:
            with pytest.raises(UserError, match="another process is at it") as caught:
                convert(original, tmp_path / "out")
            refused.append(caught.value.where)

    convert(original, tmp_path / "out", progress=second)
    assert refused == [str(tmp_path / "out")]
    check_tensor_names(str(tmp_path / "out"))


def test_a_place_that_cannot_be_written_is_said(original: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot (make|read)"):
        convert(original, tmp_path / "file" / "out")


def test_a_full_disk_is_said_before_it_is_full(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"takes 0\.0 GB on a disk with 0\.0 GB free"):
        convert(original, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def upload(folder: Path, store: Store) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            store.upload(file, file.relative_to(folder).as_posix())


def download(store: Store, folder: Path) -> Path:
    folder.mkdir()
    for key in store.list(""):
        store.download(key, folder / key)
    return folder


def test_s3_to_s3_gives_what_folders_give(
    original: Path, s3_root: str, tmp_path: Path, own_work_folder: Path
) -> None:
    upload(original, Store.open(f"{s3_root}/in"))
    seen = set()
    report = convert(
        f"{s3_root}/in", f"{s3_root}/out", max_shard_bytes=60_000, progress=lambda label, *_: seen.add(label)
    )
    assert seen == {"fetching", "hashing", "converting"}
    convert(original, tmp_path / "local", max_shard_bytes=60_000)
    same(download(Store.open(f"{s3_root}/out"), tmp_path / "fetched"), tmp_path / "local")
    assert not list((own_work_folder / "convert").iterdir())
    assert convert(f"{s3_root}/in", f"{s3_root}/out", max_shard_bytes=60_000).finished_before
    with pytest.raises(UserError, match="another conversion"):
        convert(f"{s3_root}/in", f"{s3_root}/out")
    assert report.destination == f"{s3_root}/out"


def test_a_conversion_to_s3_that_was_killed_is_no_checkpoint_and_runs_again(
    original: Path, s3_root: str, tmp_path: Path
) -> None:
    assert killed(str(original), f"{s3_root}/out")
    store = Store.open(f"{s3_root}/out")
    left = set(store.list(""))
    assert "config.json" not in left and any(key.endswith(".safetensors") for key in left)
    convert(original, f"{s3_root}/out")  # one shard now: those of the other size go
    convert(original, tmp_path / "local")
    same(download(store, tmp_path / "fetched"), tmp_path / "local")


def test_a_prefix_with_something_else_is_left_alone(original: Path, s3_root: str) -> None:
    store = Store.open(f"{s3_root}/out")
    store.put("thesis.txt", b"mine")
    with pytest.raises(UserError, match="something else already"):
        convert(original, f"{s3_root}/out")
    assert list(store.list("")) == ["thesis.txt"]


def test_an_empty_prefix_is_no_checkpoint(s3_root: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no checkpoint"):
        convert(f"{s3_root}/nothing", tmp_path / "out")


def test_the_record_is_of_what_lies_beside_it(original: Path, tmp_path: Path) -> None:
    convert(original, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "CONVERSION.json").read_text())
    held = weights(tmp_path / "out")
    assert record["tensors"] == len(held)
    assert record["bytes"] == sum(tensor.nbytes for tensor in held.values())
    assert os.listdir(tmp_path / "out").count("model.safetensors") == record["shards"] == 1
