from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from share4video.errors import UserError
from share4video.work import WORK_VARIABLE, process_folder, work_folder

HOLDER = """
from share4video.work import process_folder
with process_folder("servers") as folder:
    (folder / "models").mkdir()
    print(folder, flush=True)
    input()
"""


def _holder() -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds a folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_goes_and_what_a_live_one_holds_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORK_VARIABLE, str(tmp_path))
    killed, left = _holder()
    alive, held = _holder()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert left.is_dir()
    (foreign := work_folder("servers") / "another-host@1@x").mkdir()
    with process_folder("servers") as own, process_folder("servers") as second:
        assert not left.exists()
        assert own != second
        assert (held / "models").is_dir()
        assert foreign.is_dir()
        (own / "file").write_text("x")
    assert sorted(work_folder("servers").iterdir()) == sorted([held, foreign])
    alive.communicate("\n")
    assert alive.returncode == 0
    assert not held.exists()


def test_a_work_folder_that_cannot_be_made_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(WORK_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot make the work folder"), process_folder("servers"):
        pass
