"""Backend decord: the same frames as PyAV's, or a refusal."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from share4video.errors import UserError
from share4video.media import decode, guard
from share4video.media.limits import Limits, MediaError
from tests.media.clips import FPS, FRAMES, KINDS, cut_by_edit_list, fragmented, number_in, picture, write_clip
from tests.media.colour_cells import COLOURS, MATRICES, write_cells
from tests.media.mutants import MUTATIONS, mutant, write_small_clips
from tests.media.test_real_files import VIDEOS

decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord is not installed")

# Decord converts colours with its own, older FFmpeg; on every file here the result is the same to the bit.
MOST_DIFFERENT = 0.0  # mean absolute difference of a frame, in steps of 0 to 255

REFUSED = {
    "vfr.mp4": "the frame rate is not constant",
    "vfr.mkv": "the frame rate is not constant",
    "mpeg4.avi": "the container is neither MP4 nor Matroska",
    "h264.ts": "the container is neither MP4 nor Matroska",
    "ten_bit.mp4": "pictures are yuv420p10le, not of 8 bits",
}
HARD = {
    "av1_video.mkv": "decord cannot decode the video",
    "corrupted.mp4": "decord cannot decode the video",
    "discard_first_keyframe.mp4": "decord counts 30 frames where 25 are shown",
    "h264_10bits.mp4": "pictures are yuv420p10le, not of 8 bits",
    "nasa_13013_rotated.mp4": "the video is to be shown turned",
}
AS_PYAV = ["h265_video.mp4", "test_non_zero_start.mp4", "testsrc2_odd_height_and_width_444.mp4"]


def compare(path: Path, times: list[float], most: float = MOST_DIFFERENT) -> None:
    for found, expected in zip(
        decode.frames_at(path, times, backend="decord"), decode.frames_at(path, times), strict=True
    ):
        assert (found.timestamp_s, found.asked_s) == (expected.timestamp_s, expected.asked_s)
        assert found.rgb.shape == expected.rgb.shape
        assert np.abs(found.rgb.astype(int) - expected.rgb).mean() <= most


def refusal(path: Path) -> MediaError:
    with pytest.raises(MediaError) as caught:
        decode.frames_at(path, [0.0, 0.2, 0.9, 3.0], backend="decord")
    return caught.value


@decord
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_as_pyav_or_refused(clips: dict[str, Path], kind: str) -> None:
    if kind in REFUSED:
        error = refusal(clips[kind])
        assert (error.reason, error.sentence) == ("not_for_decord", REFUSED[kind])
    else:
        compare(clips[kind], [3.9, 0.0, 0.78, 0.79, 0.8, 0.82, 1.3, 2.41, 3.1, 9.0])


@decord
@pytest.mark.parametrize("name", [f"videos/{name}.mp4" for name in VIDEOS] + [f"hard/{n}" for n in AS_PYAV])
def test_real_files_are_as_pyav(data_root: Path, name: str) -> None:
    rng = random.Random(name)
    compare(data_root / name, [0.0, 0.5, *(rng.uniform(0, 8) for _ in range(4))])


@decord
@pytest.mark.parametrize("name", HARD)
def test_hard_files_are_refused(data_root: Path, name: str) -> None:
    error = refusal(data_root / "hard" / name)
    assert (error.reason, error.sentence) == ("not_for_decord", HARD[name])


@decord
def test_a_cut_by_an_edit_list_is_refused(clips: dict[str, Path], tmp_path: Path) -> None:
    cut = cut_by_edit_list(clips["short_gop.mp4"], tmp_path / "cut.mp4", 5)
    assert refusal(cut).sentence == f"decord counts {FRAMES} frames where {FRAMES - 5} are shown"


@decord
def test_of_several_streams_decord_may_take_another(tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=FPS) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for stream in streams:
            for number in range(10):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
            out.mux(stream.encode())
    assert refusal(path).sentence == "the file holds several video streams"


@decord
def test_fragments_are_as_pyav(clips: dict[str, Path], tmp_path: Path) -> None:
    compare(fragmented(clips["short_gop.mp4"], tmp_path / "clip.mp4"), [0.0, 1.3, 2.2, 3.9])


@decord
def test_a_clip_of_key_frames_that_do_not_stand_alone(tmp_path: Path) -> None:
    options = {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}
    compare(write_clip(tmp_path / "refreshed.mp4", options=options), [0.5, 1.3, 2.6, 3.9])


@decord
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_colours_are_as_pyav_or_refused(tmp_path: Path, matrix: str, full: bool) -> None:
    clip = write_cells(tmp_path / "clip.mp4", np.array(COLOURS) / 255, matrix=matrix, full=full)
    if matrix == "bt2020":
        assert refusal(clip).sentence == "its colours are neither BT.601 nor BT.709"
    else:
        compare(clip, [0.0, 0.2])


@decord
def test_sizes_are_limited_as_pyavs_are(clips: dict[str, Path]) -> None:
    times = [0.0, 1.5]
    small = decode.frames_at(clips["plain.mp4"], times, max_side=48, backend="decord")
    expected = decode.frames_at(clips["plain.mp4"], times, max_side=48)
    for found, wanted in zip(small, expected, strict=True):
        assert found.rgb.shape == wanted.rgb.shape == (32, 48, 3)
        assert np.abs(found.rgb.astype(int) - wanted.rgb).mean() < 2  # scaled after the colours, not before


@decord
def test_uniform_frames_are_those_of_pyav(clips: dict[str, Path]) -> None:
    found = decode.uniform_frames(clips["open_gop.mp4"], 6, 1.0, 3.0, backend="decord")
    expected = decode.uniform_frames(clips["open_gop.mp4"], 6, 1.0, 3.0)
    assert [f.timestamp_s for f in found] == [e.timestamp_s for e in expected]
    assert [number_in(f.rgb) for f in found] == [number_in(e.rgb) for e in expected]


@pytest.fixture
def pool() -> Iterator[guard.WorkerPool]:
    pool = guard.WorkerPool(1)
    yield pool
    pool.close()


def look(pool: guard.WorkerPool, clip: Path, time_s: float, limits: Limits) -> int:
    """Decode through a pool and return the number of the picture."""
    how = {"max_side": None, "mode": "exact", "start_s": None, "end_s": None, "backend": "decord"}
    return number_in(pool.call("frames", str(clip), {"times_s": [time_s], **how}, limits).frames[0][1])


@decord
def test_limits_hold(pool: guard.WorkerPool, tmp_path: Path) -> None:
    large = write_clip(tmp_path / "large.mp4", frames=40, width=1920, height=1080, gop=10)
    for limits, reason in (
        (Limits(memory_bytes=16 << 20), "decode_memory"),
        (Limits(wall_s=0.05), "decode_timeout"),
        (Limits(max_pixels=1 << 20), "too_large"),
    ):
        with pytest.raises(MediaError) as caught:
            look(pool, large, 1.9, limits)
        assert caught.value.reason == reason
    assert look(pool, large, 1.9, Limits()) == 38


@decord
@pytest.mark.parametrize(
    ("end", "reason"), [(signal.SIGSEGV, "decode_crash"), (None, "decode_timeout")], ids=["crash", "hang"]
)
def test_a_crash_or_a_hang_is_a_reject(
    pool: guard.WorkerPool, clips: dict[str, Path], end: signal.Signals | None, reason: str
) -> None:
    clip = clips["plain.mp4"]
    look(pool, clip, 1.0, Limits())
    (worker,) = pool.pids()
    os.kill(worker, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as thread:
        looking = thread.submit(look, pool, clip, 1.0, Limits(wall_s=60 if end else 0.3))
        if end is not None:
            time.sleep(0.2)  # so that the call is under way
            os.kill(worker, end)
            os.kill(worker, signal.SIGCONT)
        with pytest.raises(MediaError) as caught:
            looking.result()
    assert caught.value.reason == reason
    assert look(pool, clip, 1.0, Limits()) == 20


def outcome(path: Path) -> str | None:
    """Return why decord does not decode a file, None where it does."""
    try:
        decode.frames_at(path, [0.0, 0.55, 1.1], backend="decord", limits=Limits(wall_s=30))
    except MediaError as error:
        return error.reason
    return None


@decord
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutant_gives_frames_or_a_reason(tmp_path: Path, mutation: str) -> None:
    small = write_small_clips(tmp_path)
    for seed in range(8):
        path = mutant(small, mutation, seed, tmp_path)
        assert outcome(path) in {None, "not_for_decord", "not_video", "unreadable", "truncated", "too_large"}


def test_key_frames_are_not_for_decord(clips: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="mode exact alone"):
        decode.frames_at(clips["plain.mp4"], [0.0], mode="nearest-iframe", backend="decord")


def test_without_decord_a_sentence_says_so(
    clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="decord is not installed"):
        decode.frames_at(clips["plain.mp4"], [0.0], backend="decord")


def test_decord_is_imported_by_nobody_who_did_not_ask() -> None:
    script = "import sys; from share4video.media import decode, worker; sys.exit('decord' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], check=False, cwd=Path(__file__).parents[2]).returncode
        == 0
    )
