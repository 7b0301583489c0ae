"""A small source folder: two clips that differ, a copy of one, and a file that is no video."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from share4video.config import RunConfig
from share4video.synthetic.clips import write_clip
from share4video.synthetic.world import sample_clip
from tests.engines import FakeEngine


def write_source(folder: Path) -> Path:
    """Write the folder; two of its four files become clips that are kept."""
    folder.mkdir(parents=True)
    for seed in (1, 2):
        write_clip(folder / f"clip-{seed}.mp4", sample_clip(seed))
    shutil.copy(folder / "clip-1.mp4", folder / "same-as-1.mp4")
    (folder / "notes.mp4").write_text("not a video")
    return folder


def write_config(path: Path, engine: FakeEngine, **stages: object) -> Path:
    """Write a configuration whose captioner is the fake engine; returns the file."""
    spec = json.loads(engine.spec().model_dump_json())
    tree = {"engines": {"captioner": spec, "summarizer": None}, **stages}
    RunConfig.model_validate(tree)
    path.write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML
    return path


def start_share4video(
    *arguments: str, cwd: Path, stdout: int | None = None, stderr: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start the command line in a process of its own, its streams as `subprocess.Popen` has them."""
    command = [sys.executable, "-c", "from share4video.cli.main import app; app()", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=stdout, stderr=stderr)


def until(true: Callable[[], bool], within_s: float) -> None:
    """Wait until something is true; fail after ``within_s`` seconds."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
