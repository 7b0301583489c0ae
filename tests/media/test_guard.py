"""Children that hang, crash, grow, are killed or lose their parent."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import asdict
from pathlib import Path

import av
import pytest

from share4video.media import decode, guard
from share4video.media.guard import Cancellation, Cancelled, GuardedWorker, WorkerPool
from share4video.media.limits import Limits, MediaError
from share4video.media.worker import raised_in_pyav
from tests.media.clips import FPS, FRAMES, number_in, write_clip

REPOSITORY = Path(__file__).parents[2]
HOW = {"max_side": None, "mode": "exact", "start_s": None, "end_s": None, "backend": "pyav"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("guard") / "clip.mp4", width=640, height=480)


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(2, calls_per_worker=100)
    yield pool
    pool.close()


def look(
    pool: WorkerPool, clip: Path, limits: Limits | None = None, times: tuple[float, ...] = (1.0,)
) -> int:
    """Decode through a pool and return the number of the first picture."""
    arguments = {"times_s": list(times), **HOW}
    return number_in(pool.call("frames", str(clip), arguments, limits or Limits()).frames[0][1])


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(holds: Callable[[], bool], within_s: float = 15.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return holds()


def test_a_call_that_takes_too_long_is_ended(pool: WorkerPool, clip: Path) -> None:
    every_frame = tuple(i / FPS for i in range(FRAMES))
    look(pool, clip)
    (worker,) = pool.pids()
    with pytest.raises(MediaError, match=r"longer than the 0\.01 s allowed") as caught:
        look(pool, clip, Limits(wall_s=0.01), every_frame)
    assert (caught.value.reason, caught.value.measured, caught.value.bound) == ("decode_timeout", None, 0.01)
    assert not alive(worker)
    assert look(pool, clip) == FPS


def test_a_worker_that_hangs_is_killed(pool: WorkerPool, clip: Path) -> None:
    look(pool, clip)
    (worker,) = pool.pids()
    os.kill(worker, signal.SIGSTOP)
    with pytest.raises(MediaError) as caught:
        look(pool, clip, Limits(wall_s=0.3))
    assert caught.value.reason == "decode_timeout"
    assert not alive(worker)
    assert look(pool, clip) == FPS


def test_a_decoder_that_crashes_takes_only_its_worker_along(pool: WorkerPool, clip: Path) -> None:
    look(pool, clip)
    (worker,) = pool.pids()
    os.kill(worker, signal.SIGSTOP)  # so that the call is under way when it crashes
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(look, pool, clip)
        time.sleep(0.2)
        os.kill(worker, signal.SIGSEGV)
        os.kill(worker, signal.SIGCONT)
        with pytest.raises(MediaError, match="SIGSEGV") as caught:
            call.result()
    assert caught.value.reason == "decode_crash"
    assert look(pool, clip) == FPS


def test_memory_is_bounded(pool: WorkerPool, tmp_path: Path) -> None:
    large = write_clip(tmp_path / "large.mp4", frames=3, width=1920, height=1080, fps=1)
    with pytest.raises(MediaError) as caught:
        look(pool, large, Limits(memory_bytes=2 << 20))
    assert caught.value.reason == "decode_memory"
    assert caught.value.bound == 2 << 20
    assert look(pool, large) == 1


def test_pixels_are_bounded_before_they_are_decoded(pool: WorkerPool, clip: Path) -> None:
    with pytest.raises(MediaError, match="640 x 480") as caught:
        look(pool, clip, Limits(max_pixels=640 * 480 - 1))
    assert (caught.value.reason, caught.value.measured) == ("too_large", 640 * 480)
    assert look(pool, clip, Limits(max_pixels=640 * 480)) == FPS


def test_output_is_bounded(clip: Path) -> None:
    frame_bytes = 640 * 480 * 3
    times = [0.0, 1.0, 2.0]
    assert len(decode.frames_at(clip, times, limits=Limits(output_bytes=3 * frame_bytes))) == 3
    with pytest.raises(MediaError) as caught:
        decode.frames_at(clip, times, limits=Limits(output_bytes=3 * frame_bytes - 1))
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("name", ["wall_s", "memory_bytes", "max_pixels", "output_bytes", "threads"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})


def test_an_idle_worker_that_was_killed_is_replaced(pool: WorkerPool, clip: Path) -> None:
    look(pool, clip)
    (worker,) = pool.pids()
    os.kill(worker, signal.SIGKILL)
    os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)  # all its threads are gone
    assert look(pool, clip) == FPS


def test_a_refusal_keeps_the_worker(pool: WorkerPool, clip: Path, tmp_path: Path) -> None:
    look(pool, clip)
    before = pool.pids()
    (tmp_path / "no.mp4").write_text("no video")
    with pytest.raises(MediaError):
        look(pool, tmp_path / "no.mp4")
    assert look(pool, clip) == FPS
    assert pool.pids() == before


def test_workers_are_renewed_after_their_share_of_calls(clip: Path) -> None:
    pool = WorkerPool(1, calls_per_worker=2)
    pids = []
    for _ in range(3):
        look(pool, clip)
        pids.append(pool.pids())
    first, renewed, third = pids
    assert len(first) == 1 and renewed == [] and third != first
    assert not alive(first[0])
    pool.close()
    assert not alive(third[0])


def test_threads_share_a_bounded_number_of_workers(pool: WorkerPool, clip: Path) -> None:
    with ThreadPoolExecutor(6) as threads:
        numbers = list(threads.map(lambda i: look(pool, clip, times=(i / FPS,)), range(24)))
    assert numbers == list(range(24))
    assert 1 <= len(pool.pids()) <= 2


def test_a_call_that_is_interrupted_leaves_nothing_behind(pool: WorkerPool, clip: Path) -> None:
    look(pool, clip)
    (worker,) = pool.pids()
    os.kill(worker, signal.SIGSTOP)
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        look(pool, clip)
    assert not alive(worker)
    assert look(pool, clip) == FPS


def test_a_bug_in_the_worker_is_no_refusal(pool: WorkerPool, clip: Path) -> None:
    with pytest.raises(RuntimeError, match="AssertionError: dance"):
        pool.call("dance", str(clip), HOW, Limits())


def test_an_error_of_the_library_is_told_from_a_bug() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        av.open("/no/such/file")
    assert raised_in_pyav(caught.value)
    with pytest.raises(FileNotFoundError) as caught:
        Path("/no/such/file").read_bytes()
    assert not raised_in_pyav(caught.value)


def test_a_worker_that_cannot_start_says_so(
    clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "av.py").write_text("raise ImportError('broken on purpose')\n")
    monkeypatch.setattr(guard, "_PACKAGE_ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    with pytest.raises(RuntimeError, match="did not start"):
        look(WorkerPool(1), clip)


def test_an_overrun_ends_without_the_parents_help(clip: Path) -> None:
    """A worker blocked on a pipe that nobody reads is ended by its own alarm clock."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "share4video.media.worker", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert worker.stdin is not None and worker.stdout is not None
    times = [i / FPS for i in range(FRAMES)]
    request = {"operation": "frames", "path": str(clip), "times_s": times, **HOW}
    worker.stdin.write(json.dumps({**request, "limits": asdict(Limits(wall_s=0.2))}).encode() + b"\n")
    worker.stdin.flush()
    assert worker.wait(60) == -signal.SIGALRM
    worker.stdin.close()
    worker.stdout.close()


@contextmanager
def parent(script: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a script that prints the pid of its worker; yield the process and that pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


IDLE = """
    import sys, time
    from share4video.media import decode, guard
    decode.frames_at(sys.argv[1], [0.0])
    print(*guard.pool().pids(), flush=True)
    time.sleep(600)
"""
BUSY = """
    import sys, time
    from share4video.media import decode, guard
    decode.frames_at(sys.argv[1], [0.0])
    print(*guard.pool().pids(), flush=True)
    while True:
        decode.frames_at(sys.argv[1], [i / 20 for i in range(80)])
"""
FORKED = """
    import os, sys, time
    from share4video.media import decode, guard
    decode.frames_at(sys.argv[1], [0.0])
    mine = guard.pool().pids()
    if os.fork() == 0:  # it holds the worker's pipes open, and decodes with a worker of its own
        assert len(decode.frames_at(sys.argv[1], [0.0, 1.0])) == 2
        assert not set(guard.pool().pids()) & set(mine)
        print(*mine, flush=True)
    time.sleep(30)
"""


@pytest.mark.parametrize("script", [IDLE, BUSY, FORKED], ids=["idle", "busy", "forked"])
def test_no_worker_outlives_a_killed_parent(clip: Path, script: str) -> None:
    with parent(script, str(clip)) as (process, worker):
        assert alive(worker)
        time.sleep(0.3)
        process.kill()
        process.wait()
        assert eventually(lambda: not alive(worker))
        os.killpg(process.pid, signal.SIGKILL) if script is FORKED else None


def test_a_parent_that_ends_takes_its_workers_along(clip: Path) -> None:
    with parent(IDLE.replace("time.sleep(600)", ""), str(clip)) as (process, worker):
        assert process.wait(60) == 0
        assert not alive(worker)


def peak(pid: int) -> int:
    """Return the most memory a process ever held, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


def test_frames_are_not_gathered_in_the_worker(pool: WorkerPool, clip: Path) -> None:
    """80 frames of 0.9 MB pass through a worker whose memory stays far below their sum."""
    look(pool, clip)
    (worker,) = pool.pids()

    before = peak(worker)
    look(pool, clip, times=tuple(i / FPS for i in range(FRAMES)))
    assert peak(worker) - before < 20 * 640 * 480 * 3


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 frames, all of one group of pictures: decoded they are 92 MB."""
    folder = tmp_path_factory.mktemp("long")
    return write_clip(folder / "long.mp4", frames=800, width=320, height=240, gop=800)


@pytest.mark.parametrize("mode", ["exact", "nearest-iframe"])
def test_memory_does_not_grow_with_the_clip(pool: WorkerPool, long: Path, mode: str) -> None:
    arguments = {**HOW, "mode": mode, "times_s": [0.0, 1.0, 2.0]}
    pool.call("frames", str(long), arguments, Limits())
    (worker,) = pool.pids()
    before = peak(worker)
    times_s = [0.0, 20.0, 39.0]
    found = pool.call("frames", str(long), {**arguments, "times_s": times_s}, Limits()).frames
    assert [asked_s for _, _, asked_s in found] == times_s
    assert peak(worker) - before < 24 << 20


def test_the_limits_of_a_call_end_with_it(pool: WorkerPool, clip: Path) -> None:
    look(pool, clip, Limits(memory_bytes=256 << 20))
    (worker,) = pool.pids()
    assert eventually(lambda: resource.prlimit(worker, resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY)


def test_a_call_can_be_ended_from_outside(pool: WorkerPool, clip: Path) -> None:
    look(pool, clip)
    (worker,) = pool.pids()
    every_frame = tuple(i / FPS for i in range(FRAMES)) * 50
    cancellation = Cancellation()
    with cancellation.block(), ThreadPoolExecutor(1) as threads:
        under_way = threads.submit(copy_context().run, look, pool, clip, None, every_frame)
        begun = _ticks(worker)
        assert eventually(lambda: _ticks(worker) >= begun + 5)  # more than ending the call before took
        cancellation.cancel()
        with pytest.raises(Cancelled):
            under_way.result(30)
        with pytest.raises(Cancelled):
            look(pool, clip)  # what the block still asks for is not begun
    assert not alive(worker)
    assert look(pool, clip) == FPS  # outside the block nothing is ended


def test_a_worker_whose_call_was_ended_too_late_is_not_handed_on(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call has its answer; the kill is sent, and has not come through."""
    worker, cancellation = GuardedWorker(), Cancellation()
    monkeypatch.setattr(worker, "interrupt", lambda: None)
    with cancellation.watch(worker):
        worker.call("frames", str(clip), {"times_s": [1.0], **HOW}, Limits())
        cancellation.cancel()
    assert not worker.alive


def test_a_call_that_waits_for_a_worker_can_be_ended(clip: Path) -> None:
    pool = WorkerPool(1)
    cancellation = Cancellation()
    waiting = threading.Event()

    def wait() -> int:
        waiting.set()
        return look(pool, clip)

    shots = pool.stream("stream", str(clip), {"interval_s": 1.0, "max_side": None}, Limits())
    next(shots)  # it keeps the one worker until it is read to its end
    with cancellation.block(), ThreadPoolExecutor(1) as threads:
        waits = threads.submit(copy_context().run, wait)
        assert waiting.wait(30)
        cancellation.cancel()
        with pytest.raises(Cancelled):
            waits.result(30)
    assert len(list(shots)) == FRAMES // FPS - 1
    assert look(pool, clip) == FPS
    pool.close()


def _ticks(pid: int) -> int:
    """Return how long a process has used its processor, in ticks of (usually) 10 ms."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
