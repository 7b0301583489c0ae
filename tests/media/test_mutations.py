"""Files that are damaged in five ways: frames or a reason, the same each time, within the limits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from share4video.media import decode, guard
from share4video.media.limits import Limits, MediaError
from share4video.media.probe import ClipInfo, probe
from tests.media.mutants import MUTATIONS, mutant, write_small_clips

EACH = 40  # mutants of each kind: 200 in all
LIMITS = Limits(wall_s=30, memory_bytes=256 << 20)
GRACE_S = 10.0  # to end a worker and start another on a loaded machine
IDLE_BYTES = 512 << 20  # address space of an idle worker, at most
TIMES = [0.0, 0.3, 0.55, 0.9, 1.15, 3.0]
REASONS = {"not_video", "unreadable", "truncated", "too_large", "decode_memory"}


@pytest.fixture(scope="module")
def small_clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_small_clips(tmp_path_factory.mktemp("small"))


def described(path: Path) -> ClipInfo:
    return probe(path, limits=LIMITS)


def shown(path: Path) -> list[tuple[float, bytes]]:
    return [
        (frame.timestamp_s, frame.rgb.tobytes()) for frame in decode.frames_at(path, TIMES, limits=LIMITS)
    ]


def key_frames(path: Path) -> list[tuple[float, bytes]]:
    found = decode.frames_at(path, TIMES, mode="nearest-iframe", limits=LIMITS)
    return [(frame.timestamp_s, frame.rgb.tobytes()) for frame in found]


def outcome(look: Callable[[Path], Any], path: Path) -> Any:
    """Return what a look finds, or why it is refused; it takes no longer and no more than it may."""
    before = time.monotonic()
    try:
        return look(path)
    except MediaError as error:
        return error.reason, error.sentence
    finally:
        assert time.monotonic() - before < LIMITS.wall_s + GRACE_S
        assert all(peak_bytes(pid) < IDLE_BYTES + LIMITS.memory_bytes for pid in guard.pool().pids())


def peak_bytes(pid: int) -> int:
    """Return the most address space a process ever took; 0 for one that is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmPeak")), 0)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutant_gives_frames_or_a_reason(
    small_clips: dict[str, Path], tmp_path: Path, mutation: str
) -> None:
    guard.pool().close()  # what other tests made its workers take counts for nothing here
    ends: Counter[str] = Counter()
    for seed in range(EACH):
        path = mutant(small_clips, mutation, seed, tmp_path)
        for look in (described, shown, key_frames):
            found = outcome(look, path)
            assert found == outcome(look, path), (path.name, look)
            refused = isinstance(found, tuple)
            assert not refused or found[0] in REASONS, (path.name, found)
            ends[found[0] if refused else "accepted"] += 1
        path.unlink()
    if mutation == "wrong_extension":
        assert set(ends) == {"accepted"}
    else:
        assert ends["accepted"] and ends["unreadable"] + ends["truncated"], (
            ends
        )  # it tells one from the other


def test_whole_clips_are_accepted(small_clips: dict[str, Path]) -> None:
    for path in small_clips.values():
        assert described(path).frames == len(decode.frames_at(path, [i / 20 for i in range(24)]))
