"""The folder of an export: whole or not there, whatever stands in its place or stops it."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from share4video.errors import UserError
from share4video.export.run import export
from share4video.store import LocalStore
from tests.export.material import Published, bytes_of


def test_a_file_is_no_folder_and_a_link_to_one_is(
    store: LocalStore, published: Published, tmp_path: Path
) -> None:
    file, link, folder = tmp_path / "file", tmp_path / "link", tmp_path / "folder"
    file.touch()
    with pytest.raises(UserError, match="this is a file, no folder"):
        export(store, published.dataset, file, "sharegpt4video")
    folder.mkdir()
    link.symlink_to(folder)
    export(store, published.dataset, link, "sharegpt4video")
    assert (folder / "export.json").is_file() and link.is_symlink()


def test_a_disk_that_takes_no_more_is_a_sentence(
    store: LocalStore, published: Published, tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        with pytest.raises(UserError, match="cannot finish the export: File too large"):
            export(store, published.dataset, tmp_path / "out", "huggingface")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("*out*"))


def test_a_killed_export_leaves_nothing_and_the_next_one_is_whole(
    store: LocalStore, published: Published, tmp_path: Path
) -> None:
    program = f"""
import os, signal
from pathlib import Path
from share4video.dataset.export_folder import ExportFolder
from share4video.dataset.manifest import StageRef
from share4video.export.run import export
from share4video.store import Store
ExportFolder.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
export(Store.open({str(store.root)!r}), StageRef.parse({str(published.dataset)!r}),
       Path({str(tmp_path / "out")!r}), "huggingface")
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    left = list(tmp_path.glob(".out.partial-*"))
    assert len(left) == 1
    assert not (tmp_path / "out").exists()
    export(store, published.dataset, tmp_path / "out", "huggingface")
    export(store, published.dataset, tmp_path / "other", "huggingface")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "other")
    assert not left[0].exists()
