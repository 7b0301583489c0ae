"""Small clips of many kinds, and what a bad disk, a broken upload or a hostile hand makes of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.media.clips import write_clip

SMALL: dict[str, dict[str, Any]] = {
    "h264.mp4": {"gop": 10},
    "h264.mkv": {"gop": 10},
    "h264.ts": {"gop": 10},
    "open_gop.mp4": {"options": {"x264-params": "open-gop=1:bframes=3:keyint=10:scenecut=0"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=10"}},
    "hevc.mkv": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=10"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}, "gop": 10},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "keyint=10"}},
    "av1.mkv": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "keyint=10"}},
    "mpeg4.avi": {"codec": "mpeg4", "gop": 10},
    "mpeg4.mkv": {"codec": "mpeg4", "options": {"bf": "2"}, "gop": 10},
    "mpeg2.ts": {"codec": "mpeg2video", "gop": 10},
}
FRAMES = 24


def write_small_clips(folder: Path) -> dict[str, Path]:
    """Write one clip of each kind, 1.2 seconds long."""
    return {name: write_clip(folder / name, frames=FRAMES, **how) for name, how in SMALL.items()}


def truncate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(1, len(data))]


def flip_bytes(data: bytes, other: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 10, 40))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def zero_ranges(data: bytes, other: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(changed))
        end = min(len(changed), start + rng.choice((4, 64, 512, 4096)))
        changed[start:end] = bytes(end - start)
    return bytes(changed)


def splice(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Put a piece of one file into another, or end one with the other's end."""
    start, end = sorted(rng.randrange(len(other)) for _ in range(2))
    at = rng.randrange(len(data))
    kept = data[at:] if rng.random() < 0.5 else b""
    return data[:at] + other[start:end] + kept


def leave(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return data


MUTATIONS: dict[str, Callable[[bytes, bytes, random.Random], bytes]] = {
    "truncate": truncate,
    "flip_bytes": flip_bytes,
    "zero_ranges": zero_ranges,
    "splice": splice,
    "wrong_extension": leave,
}


def mutant(clips: dict[str, Path], mutation: str, seed: int, folder: Path) -> Path:
    """Write the mutant of one of ``clips`` that ``seed`` stands for, and return where."""
    rng = random.Random(f"{mutation} {seed}")
    names = sorted(clips)
    name, other = rng.choice(names), rng.choice(names)
    data = MUTATIONS[mutation](clips[name].read_bytes(), clips[other].read_bytes(), rng)
    suffix = rng.choice([".avi", ".mkv", ".jpg", ""]) if mutation == "wrong_extension" else Path(name).suffix
    path = folder / f"{mutation}-{seed}-{Path(name).stem}{suffix}"
    path.write_bytes(data)
    return path
