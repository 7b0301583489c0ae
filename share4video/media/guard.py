"""Runs decoding in child processes, so that no file can crash, hang or exhaust the caller.

C code cannot be interrupted and takes its whole process along when it fails. A ``GuardedWorker`` is such a
process (``worker.py``); the ``WorkerPool`` keeps a few, starts them when they are first needed, replaces the
ones that were lost and renews each after a number of calls. Workers end with their parent, also when it is
killed.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from share4video.media import wire
from share4video.media.limits import Limits, MediaError

CALLS_PER_WORKER = 500
_START_S = 120.0  # starting a worker imports its libraries, which takes long on a loaded machine
_STOP_S = 2.0
_LOOK_S = 0.1  # how often a call that waits for a worker looks whether it was ended
_PIPE_BYTES = 1 << 20
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


Shot = tuple[float, npt.NDArray[np.uint8], float]  # time in seconds, RGB, moment asked for
Shots = Generator[Shot, None, None]


@dataclass
class Reply:
    """What a worker answered: one frame per moment, and facts."""

    frames: list[Shot] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


class _Lost(Exception):
    """The worker's pipe broke."""


class _Overdue(Exception):
    """The worker did not answer in time."""


class Cancelled(Exception):
    """The call was ended by whoever asked for it; it says nothing about the file."""


class Cancellation:
    """Ends, from any thread, the calls that are made inside its block.

    Threads that carry the context of the block along (``asyncio.to_thread`` does) are inside it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: set[GuardedWorker] = set()
        self._cancelled = False

    @contextmanager
    def block(self) -> Iterator[None]:
        """Cover what is called in here."""
        token = _cancellation.set(self)
        try:
            yield
        finally:
            _cancellation.reset(token)

    def cancel(self) -> None:
        """End the workers at work for the block's calls, and refuse its later calls (``Cancelled``)."""
        with self._lock:  # held, so that no worker has gone over to somebody else's call meanwhile
            self._cancelled = True
            for worker in self._workers:
                worker.interrupt()

    def check(self) -> None:
        """Raise Cancelled where the block's calls have been ended."""
        if self._cancelled:
            raise Cancelled

    @contextmanager
    def watch(self, worker: GuardedWorker) -> Iterator[None]:
        """Tie a worker to the block for one call. Raises Cancelled where the call was ended, or came late."""
        with self._lock:
            self.check()
            self._workers.add(worker)
        try:
            yield
        except Exception:
            if self._cancelled:
                raise Cancelled from None
            raise
        finally:
            with self._lock:
                self._workers.discard(worker)
                ended = self._cancelled
            if ended:  # it was killed, if only just after its answer: nobody else may be given it
                worker.kill()


_cancellation: ContextVar[Cancellation | None] = ContextVar("share4video_decoding", default=None)


class GuardedWorker:
    """One child process; serves one call at a time."""

    def __init__(self) -> None:
        search_path = [str(_PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(search_path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",  # every further arena would reserve address space the limit counts
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "share4video.media.worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
        )
        self.calls = 0
        self.leaving = False  # it ends after its last answer
        self._ready = False
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        with contextlib.suppress(OSError):  # a larger pipe only saves wake-ups; the system may refuse it
            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def call(self, operation: str, path: str, arguments: dict[str, Any], limits: Limits) -> Reply:
        """Run one operation. On any exception but a refusal by the file the process is gone afterwards.

        Raises:
            MediaError: the file was refused, or went over a limit, or took the process down.
            RuntimeError: the worker could not start or met a bug.
        """
        reply = Reply()
        with self._refusals(limits):
            self._ask(operation, path, arguments, limits)
            deadline = time.monotonic() + limits.wall_s
            while self._read_answer(reply, limits, deadline):
                pass
        return reply

    def stream(self, operation: str, path: str, arguments: dict[str, Any], limits: Limits) -> Shots:
        """Run an operation that sends one frame after the other, each when it is wanted.

        ``limits.wall_s`` is the time for each, and what passes here between two does not count. The process
        is gone where the iterator is not read to its end.

        Raises:
            MediaError: as `call` does.
            RuntimeError: as `call` does.
        """
        reply = Reply()
        with self._refusals(limits):
            self._ask(operation, path, arguments, limits)
            while self._read_answer(reply, limits, time.monotonic() + limits.wall_s):
                yield reply.frames.pop()
                self._send(b"\n")

    def _ask(self, operation: str, path: str, arguments: dict[str, Any], limits: Limits) -> None:
        self.calls += 1
        self._await_start()
        request = {"operation": operation, "path": path, **arguments, "limits": asdict(limits)}
        self._send(json.dumps(request).encode() + b"\n")

    @contextmanager
    def _refusals(self, limits: Limits) -> Iterator[None]:
        """Say what the end of the process means, and end it on anything but a refusal by the file."""
        try:
            yield
        except _Overdue:
            self.kill()
            raise _timeout(limits) from None
        except (_Lost, BrokenPipeError):
            raise self._died(limits) from None
        except MediaError:
            raise
        except BaseException:
            self.kill()
            raise

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # a signal may cut a write short
            view = view[os.write(self._requests.fileno(), view) :]

    def _await_start(self) -> None:
        if self._ready:
            return
        try:
            head, _ = self._receive(time.monotonic() + _START_S)
        except (_Lost, _Overdue):
            self.kill()
            raise RuntimeError("the media worker did not start; what it printed says why") from None
        assert head == {"kind": "ready"}
        self._ready = True

    def _read_answer(self, reply: Reply, limits: Limits, deadline: float) -> bool:
        """Read one message into ``reply``; return whether another follows."""
        head, length = self._receive(deadline)
        kind, self.leaving = head["kind"], head.get("leaving", False)
        if kind == "block" and head["shape"] is None:
            reply.frames.append((head["time_s"], reply.frames[-1][1], head["asked_s"]))
        elif kind == "block":
            rgb = np.empty(head["shape"], np.uint8)
            if rgb.nbytes != length:
                raise RuntimeError(f"a block of {length} bytes does not hold {head['shape']}")
            self._read_into(rgb.data.cast("B"), deadline)
            reply.frames.append((head["time_s"], rgb, head["asked_s"]))
        elif kind == "done":
            reply.facts = head["facts"]
            return False
        elif kind == "refused":
            raise MediaError(head["reason"], head["sentence"], measured=head["measured"], bound=head["bound"])
        elif kind == "out_of_memory":
            raise MediaError(
                "decode_memory",
                f"decoding takes more than the {limits.memory_bytes >> 20} MiB allowed",
                bound=float(limits.memory_bytes),
            )
        else:
            raise RuntimeError(f"the media worker failed:\n{head.get('traceback', head)}")
        return True

    def _receive(self, deadline: float) -> tuple[dict[str, Any], int]:
        prefix = bytearray(wire.PREFIX.size)
        self._read_into(memoryview(prefix), deadline)
        head_length, body_length = wire.PREFIX.unpack(prefix)
        if head_length > wire.MAX_HEAD_BYTES:
            raise RuntimeError(f"the media worker sent a head of {head_length} bytes")
        data = bytearray(head_length)
        self._read_into(memoryview(data), deadline)
        head: dict[str, Any] = json.loads(data)
        return head, body_length

    def _read_into(self, view: memoryview, deadline: float) -> None:
        """Fill ``view`` from the pipe. Raises _Overdue at the deadline, _Lost at the pipe's end."""
        pipe = self._answers.fileno()
        waiter = select.poll()
        waiter.register(pipe, select.POLLIN)
        while view.nbytes:
            remaining_ms = (deadline - time.monotonic()) * 1000
            if remaining_ms <= 0 or not waiter.poll(remaining_ms):
                raise _Overdue
            count = os.readv(pipe, [view])
            if count == 0:
                raise _Lost
            view = view[count:]

    def _died(self, limits: Limits) -> MediaError:
        """Return what the process's end says about the file."""
        self.close()
        code = self._process.returncode
        if code == -signal.SIGALRM:
            return _timeout(limits)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return MediaError("decode_crash", f"the decoder crashed ({how})")

    def close(self) -> None:
        """End the process: it goes when its pipe closes, and is killed if it does not."""
        self._hang_up()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def interrupt(self) -> None:
        """End the process from another thread than the one that waits for its answer, which then hears."""
        self._process.kill()

    def kill(self) -> None:
        self._process.kill()
        self._hang_up()
        self._process.wait()

    def _hang_up(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()

    def disown(self) -> None:
        """In a process forked from the owner: let go of the pipes, leave the worker to its owner."""
        self._hang_up()
        self._process.returncode = 0  # it is not this process's child; nobody here may wait for it


def _timeout(limits: Limits) -> MediaError:
    return MediaError(
        "decode_timeout", f"decoding takes longer than the {limits.wall_s:g} s allowed", bound=limits.wall_s
    )


class WorkerPool:
    """At most ``size`` workers, started when first needed and shared by the threads of this process."""

    def __init__(self, size: int, *, calls_per_worker: int = CALLS_PER_WORKER) -> None:
        self._calls_per_worker = calls_per_worker
        self._idle: list[GuardedWorker] = []
        self._leased: set[GuardedWorker] = set()
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(size)

    def call(self, operation: str, path: str, arguments: dict[str, Any], limits: Limits) -> Reply:
        """Run an operation of ``worker.py`` on a file.

        Raises what ``GuardedWorker.call`` raises, and Cancelled where it was ended from outside (see
        `Cancellation`).
        """
        with self._lease() as worker:
            return worker.call(operation, path, arguments, limits)

    def stream(self, operation: str, path: str, arguments: dict[str, Any], limits: Limits) -> Shots:
        """As ``GuardedWorker.stream``, of which one is taken until the iterator ends."""
        with self._lease() as worker:
            yield from worker.stream(operation, path, arguments, limits)

    @contextmanager
    def _lease(self) -> Iterator[GuardedWorker]:
        cancellation = _cancellation.get()
        with self._place(cancellation):
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is not None and not worker.alive:  # it was killed while it had nothing to do
                worker.kill()
                worker = None
            worker = worker or GuardedWorker()
            with self._lock:
                self._leased.add(worker)
            try:
                with cancellation.watch(worker) if cancellation else contextlib.nullcontext():
                    yield worker
            finally:
                with self._lock:
                    self._leased.discard(worker)
                if worker.leaving or worker.calls >= self._calls_per_worker:
                    worker.close()
                elif worker.alive:
                    with self._lock:
                        self._idle.append(worker)

    @contextmanager
    def _place(self, cancellation: Cancellation | None) -> Iterator[None]:
        """Wait for one of the workers. Raises Cancelled where the call is ended meanwhile."""
        while not self._places.acquire(timeout=_LOOK_S if cancellation else None):
            if cancellation:
                cancellation.check()
        try:
            yield
        finally:
            self._places.release()

    def pids(self) -> list[int]:
        """Return the process ids of the workers at hand."""
        with self._lock:
            return [worker.pid for worker in [*self._idle, *self._leased]]

    def close(self) -> None:
        """End the idle workers; the pool can be used again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()

    def disown(self) -> None:
        for worker in [*self._idle, *self._leased]:
            worker.disown()


def _new_pool() -> WorkerPool:
    return WorkerPool(max(1, min(4, os.cpu_count() or 1)))


_pool = _new_pool()


def pool() -> WorkerPool:
    """Return this process's pool: one worker per core, at most four."""
    return _pool


def _after_fork_in_child() -> None:
    global _pool
    _pool.disown()
    _pool = _new_pool()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(lambda: _pool.close())
