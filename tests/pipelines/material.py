"""A small source folder: two clips that differ, a copy of one, and a file that is no video."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from share4video.config import RunConfig
from share4video.synthetic.clips import write_clip
from share4video.synthetic.world import sample_clip
from tests.engines import FakeEngine

CLIPS = 3


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


def share4video(*arguments: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-c", "from share4video.cli.main import app; app()", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=150, check=False, **options
    )  # type: ignore[call-overload,no-any-return]
