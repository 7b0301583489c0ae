"""The guarded worker: a child process that decodes what its parent asks for (``guard.py``).

Started as ``python -m share4video.media.worker PARENT_PID``. Requests come on standard input, one JSON object
per line; answers go to standard output in the form of ``wire.py``. It ends when its parent closes the pipe,
dies, or lets a request overrun: the kernel's alarm clock ends it even in the middle of C code.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.logging

from share4video.media import decord_source, inspection, wire
from share4video.media.frame_source import Shown, frames_every, frames_on_show
from share4video.media.key_frames import nearest_key_frames
from share4video.media.limits import Limits, MediaError
from share4video.media.painter import Painter
from share4video.media.sampling import uniform_indices

_OVERRUN_S = 2.0  # the parent kills at the limit; the alarm is for a worker whose parent is gone
_PARENT_CHECK_S = 1.0
_LARGEST_ALLOCATION = 32 << 20  # a picture of the largest allowed size takes about this much


class Answers:
    """Writes a request's answer as it comes."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe

    def send(self, head: dict[str, Any], body: memoryview | None = None) -> None:
        self._pipe.write(wire.encode(head, body.nbytes if body else 0))
        if body:
            self._pipe.write(body)
        self._pipe.flush()


def main() -> None:
    """Serve requests until the parent hangs up."""
    parent = int(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    answers = Answers(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # nothing but answers may reach the parent
    av.logging.restore_default_callback()  # FFmpeg calling into Python from its threads can deadlock
    av.logging.set_libav_level(av.logging.PANIC)
    requests = os.fdopen(os.dup(0), "rb")
    answers.send({"kind": "ready"})
    for line in requests:
        request = json.loads(line)
        limits = Limits(**request.pop("limits"))
        if request["operation"] == "scenes":  # needs OpenCV, whose size is not held against the file
            import_module("share4video.media.scenes")
        if request["operation"] == "picture":
            import_module("share4video.media.picture_file")
        try:
            if request.get("backend") == "decord":
                decord_source.load()  # before the limits, which are on top of what an idle worker takes
            bound = _arm(limits)
            last = {"kind": "done", "facts": _serve(request, limits, answers, requests)}
        except MediaError as error:
            # Decoders report an allocation that fails as damage: where memory was short, that is the reason.
            last = {"kind": "out_of_memory"} if _near(bound, limits) else _refusal(error)
        except MemoryError:
            last = {"kind": "out_of_memory"}
        except Exception as error:
            if raised_in_pyav(error):
                last = _refusal(MediaError("unreadable", f"the decoder failed ({type(error).__name__})"))
            else:
                last = {"kind": "bug", "traceback": traceback.format_exc()}
        # Once near its bound, a process could not tell the next file's need of memory from this one's.
        leaving = last["kind"] == "out_of_memory" or _near(bound, limits)
        _disarm()
        answers.send({**last, "leaving": leaving})
        if leaving:
            return


def raised_in_pyav(error: BaseException) -> bool:
    """Return whether PyAV itself raised ``error``: some files lead it into errors that are not FFmpeg's."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "av" in Path(frames[-1].filename).parts[-3:-1]


def _refusal(error: MediaError) -> dict[str, Any]:
    return {
        "kind": "refused",
        "reason": error.reason,
        "sentence": error.sentence,
        "measured": error.measured,
        "bound": error.bound,
    }


def _serve(request: dict[str, Any], limits: Limits, answers: Answers, requests: BinaryIO) -> dict[str, Any]:
    """Do what is asked, sending frames as they come; return the facts found."""
    operation, path = request["operation"], request["path"]
    if operation == "times":
        return inspection.span_times(path, limits, request["start_s"], request["end_s"])
    if operation == "inspect":
        up_to_s, cuts = request["decode_up_to_s"], request["cuts"]
        return inspection.inspect(path, limits, decode_up_to_s=up_to_s, cuts=cuts)
    if operation == "scenes":
        from share4video.media import scenes

        return {"cuts": scenes.find_cuts(path, limits, request["threshold"], request["min_scene_s"])}
    if operation == "picture":
        from share4video.media import picture_file

        facts, rgb = picture_file.read(path, limits, request["formats"])
        if request["pixels"]:
            answers.send(
                {"kind": "block", "asked_s": 0.0, "time_s": 0.0, "shape": rgb.shape}, rgb.data.cast("B")
            )
        return facts
    if operation == "stream":
        frames = frames_every(path, limits, request["interval_s"])
        _send_frames(frames, request["max_side"], limits, answers, lambda: _await_leave(requests, limits))
        return {}
    span_s = request["start_s"], request["end_s"]
    if operation == "uniform":
        seen = inspection.span_moments(path, limits, *span_s)
        moments: dict[str, Any] = {"ticks": [seen[i] for i in uniform_indices(len(seen), request["n"])]}
    else:
        assert operation == "frames", operation
        moments = {"times_s": request["times_s"]}
    if request["backend"] == "decord":
        shown = decord_source.frames_on_show(path, limits, **moments)
    elif request["mode"] == "nearest-iframe":
        shown = nearest_key_frames(path, limits, span_s=span_s, **moments)
    else:
        shown = frames_on_show(path, limits, **moments)
    _send_frames(shown, request["max_side"], limits, answers)
    return {}


def _send_frames(
    shown: Iterable[Shown],
    max_side: int | None,
    limits: Limits,
    answers: Answers,
    pause: Callable[[], None] | None = None,
) -> None:
    """Send a block per moment; a moment that shows the frame of the one before sends no pixels.

    Args:
        pause: called after each block, which then has the limits to itself.
    """
    painter = Painter(max_side)
    before: float | None = None
    sent = 0
    for asked_s, time_s, frame in shown:
        head = {"kind": "block", "asked_s": asked_s, "time_s": time_s}
        if time_s == before:
            answers.send({**head, "shape": None})
            continue
        before = time_s
        rgb = painter.paint(frame)
        sent += rgb.nbytes
        if sent > limits.output_bytes:
            raise MediaError(
                "too_large",
                f"its frames fill more than the {limits.output_bytes >> 20} MiB allowed",
                bound=float(limits.output_bytes),
            )
        answers.send({**head, "shape": rgb.shape}, rgb.data.cast("B"))
        if pause is not None:
            pause()
            sent = 0


def _await_leave(requests: BinaryIO, limits: Limits) -> None:
    """Wait until the parent wants the next frame; that time is the parent's."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    if not requests.readline():
        os._exit(0)
    _set_alarm(limits)


def _set_alarm(limits: Limits) -> None:
    signal.setitimer(signal.ITIMER_REAL, limits.wall_s + _OVERRUN_S)  # no handler: it kills


def _arm(limits: Limits) -> int:
    """Bound address space and time for one request; return the bound on address space, in bytes."""
    bound = _memory("VmSize") + limits.memory_bytes
    _limit_address_space(bound)
    _set_alarm(limits)
    return bound


def _near(bound: int, limits: Limits) -> bool:
    """Return whether the process ever came so close to its bound that an allocation may have failed."""
    return _memory("VmPeak") > bound - max(limits.memory_bytes // 8, _LARGEST_ALLOCATION)


def _memory(field: str) -> int:
    """Return a size from this process's status, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    _limit_address_space(resource.RLIM_INFINITY)


def _limit_address_space(amount: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = [bound for bound in (amount, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(allowed, default=resource.RLIM_INFINITY), hard))


def _die_with(parent: int) -> None:
    """End this process when the parent hangs up or is gone, whatever the main thread does.

    The pipe alone is not enough: a process the parent forked holds its other end open too.
    """
    hangup = select.poll()
    hangup.register(0, 0)  # no events asked for: only a hang-up is reported
    while os.getppid() == parent and not hangup.poll(_PARENT_CHECK_S * 1000):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
