"""A folder of good and bad files, and what the probe stage finds in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from share4video.config import ProbeConfig
from share4video.store import LocalStore
from tests.media.clips import write_clip

CONFIG = ProbeConfig(min_duration_s=1, max_duration_s=4, min_height=48, licence="CC0")
STILL = np.full((64, 96, 3), 90, np.uint8)
STILL[10:30, 10:30] = (250, 120, 30)
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


def write_source(folder: Path) -> None:
    """Fill a folder with two good clips and one file for every reason."""
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


def everything(store: LocalStore) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("") if not key.startswith("locks/")}
