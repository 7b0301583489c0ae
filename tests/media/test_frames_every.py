"""Frames that come while a file is read: which they are, what they cost, and what ends them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from share4video.media.decode import frames_at, frames_every
from share4video.media.guard import WorkerPool, pool
from share4video.media.limits import Limits, MediaError
from share4video.media.probe import probe
from share4video.media.sampling import every
from tests.media.clips import FPS, KINDS, fragmented, number_in, write_clip
from tests.media.test_guard import alive, eventually, peak


@pytest.mark.parametrize("interval_s", [0.3, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_those_of_a_file_whose_length_is_known(
    clips: dict[str, Path], kind: str, interval_s: float
) -> None:
    known = frames_at(clips[kind], every(probe(clips[kind]).duration_s, interval_s), max_side=48)
    by_time = {frame.timestamp_s: frame.rgb for frame in known}
    came = list(frames_every(clips[kind], interval_s, max_side=48))
    assert [frame.timestamp_s for frame in came] == sorted(by_time)
    assert all(np.array_equal(frame.rgb, by_time[frame.timestamp_s]) for frame in came)


def test_a_single_frame_is_one(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "one.mp4", frames=1)
    assert [frame.timestamp_s for frame in frames_every(path, 2.0)] == [0.0]


def test_an_index_that_knows_part_of_the_file_changes_nothing(clips: dict[str, Path], tmp_path: Path) -> None:
    parts = fragmented(clips["short_gop.mp4"], tmp_path / "parts.mp4")
    assert [number_in(frame.rgb) for frame in frames_every(parts, 0.5)] == list(range(0, 80, 10))


@pytest.fixture
def workers() -> Iterator[WorkerPool]:
    workers = WorkerPool(2)
    yield workers
    workers.close()


def test_memory_does_not_grow_with_the_number_of_frames(workers: WorkerPool, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mp4", frames=400, width=640, height=480)  # 370 MB of pictures
    came = workers.stream("stream", str(path), {"interval_s": 1 / FPS, "max_side": None}, Limits())
    next(came)
    (worker,) = workers.pids()
    before = peak(worker)
    assert sum(1 for _ in came) == 399
    assert peak(worker) - before < 24 << 20


def test_each_frame_has_the_limits_to_itself(clips: dict[str, Path]) -> None:
    size = 96 * 64 * 3
    bound = Limits(output_bytes=2 * size)
    assert len(list(frames_every(clips["plain.mp4"], 0.05, limits=bound))) == 80
    with pytest.raises(MediaError, match="MiB allowed"):
        list(frames_every(clips["plain.mp4"], 0.05, limits=Limits(output_bytes=size - 1)))


def test_time_between_frames_is_the_callers(clips: dict[str, Path], workers: WorkerPool) -> None:
    """The worker's alarm, which ends it 2 s after its limit, does not run while it waits."""
    limits = Limits(wall_s=1.0)
    how = {"interval_s": 1.0, "max_side": None}
    came = workers.stream("stream", str(clips["plain.mp4"]), how, limits)
    next(came)
    time.sleep(3.5)
    assert len(list(came)) == 3


def test_who_stops_early_leaves_no_worker_behind(clips: dict[str, Path], workers: WorkerPool) -> None:
    came = workers.stream("stream", str(clips["plain.mp4"]), {"interval_s": 0.05, "max_side": None}, Limits())
    next(came)
    (worker,) = workers.pids()
    came.close()
    assert eventually(lambda: not alive(worker))
    assert workers.pids() == []


def test_a_worker_that_dies_in_between_is_a_refusal(clips: dict[str, Path], workers: WorkerPool) -> None:
    came = workers.stream("stream", str(clips["plain.mp4"]), {"interval_s": 0.05, "max_side": None}, Limits())
    next(came)
    (worker,) = workers.pids()
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(MediaError) as caught:
        list(came)
    assert caught.value.reason == "decode_crash"


def test_a_worker_serves_other_calls_afterwards(clips: dict[str, Path]) -> None:
    assert len(list(frames_every(clips["plain.mp4"], 1.0))) == 4
    before = pool().pids()
    assert number_in(frames_at(clips["plain.mp4"], [1.0])[0].rgb) == 20
    assert set(before) & set(pool().pids())


def test_damage_ends_the_frames_where_it_is(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=200, width=320, height=240, gop=20)
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4
    middle = begin + (data.index(b"moov", begin) - begin) * 3 // 4
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    seen: list[float] = []
    with pytest.raises(MediaError, match="damaged after"):
        seen.extend(frame.timestamp_s for frame in frames_every(path, 0.5))
    assert seen[:6] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


@pytest.mark.parametrize(("interval_s", "side"), [(0.0, None), (-1.0, None), (float("inf"), None), (1.0, 0)])
def test_intervals_and_sides_are_positive(
    clips: dict[str, Path], interval_s: float, side: int | None
) -> None:
    with pytest.raises(ValueError, match="positive"):
        next(frames_every(clips["plain.mp4"], interval_s, max_side=side))
