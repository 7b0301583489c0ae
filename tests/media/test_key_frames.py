"""Mode nearest-iframe: the nearest codec key frame that the file shows, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from share4video.media import decode, frame_source, key_frames
from share4video.media.limits import Limits
from tests.media.clips import (
    FPS,
    FRAMES,
    KINDS,
    cut_by_edit_list,
    fragmented,
    number_in,
    on_show,
    read_through,
    write_clip,
)

whole = cache(read_through)
_CLOSE = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def key_times(path: Path) -> list[float]:
    """Return when the key frames come on show that a file shows, found by decoding all of it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shown = [(frame.pts, frame.key_frame) for frame in container.decode(stream)]
        return [float((pts - shown[0][0]) * stream.time_base) for pts, is_key in shown if is_key]


def nearest(times: list[float], time_s: float) -> float:
    return min(times, key=lambda candidate: (abs(candidate - time_s), candidate))


@pytest.mark.parametrize("kind", KINDS)
@_CLOSE
@given(shares=st.lists(st.floats(0, 1.1), min_size=1, max_size=6))
def test_any_time_gets_the_nearest_key_frame(clips: dict[str, Path], kind: str, shares: list[float]) -> None:
    truth, keys = whole(clips[kind]), key_times(clips[kind])
    times = [share * truth[-1][0] for share in shares]
    for time_s, frame in zip(times, decode.frames_at(clips[kind], times, mode="nearest-iframe"), strict=True):
        assert abs(frame.timestamp_s - time_s) == pytest.approx(abs(nearest(keys, time_s) - time_s), abs=1e-9)
        assert frame.timestamp_s in keys
        assert np.array_equal(frame.rgb, on_show(truth, frame.timestamp_s)[1])
        assert (frame.asked_s, frame.shift_s) == (time_s, time_s - frame.timestamp_s)


def test_of_two_the_earlier(clips: dict[str, Path]) -> None:
    first, second = key_times(clips["no_b.mkv"])[:2]
    between = (first + second) / 2
    for time_s, expected_s in ((between, first), (between + 0.001, second)):
        (frame,) = decode.frames_at(clips["no_b.mkv"], [time_s], mode="nearest-iframe")
        assert frame.timestamp_s == expected_s


@pytest.mark.parametrize("kind", ["short_gop.mp4", "open_gop.mp4", "vfr.mkv", "h264.ts"])
def test_a_span_is_answered_from_itself(clips: dict[str, Path], kind: str) -> None:
    keys = key_times(clips[kind])
    start_s, end_s = keys[1], keys[2]
    asked = [start_s, end_s - 0.01]
    found = decode.frames_at(clips[kind], asked, mode="nearest-iframe", span_s=(start_s, end_s))
    assert {frame.timestamp_s for frame in found} == {start_s}
    uniform = decode.uniform_frames(clips[kind], 3, start_s, end_s, mode="nearest-iframe")
    assert {frame.timestamp_s for frame in uniform} == {start_s}
    exact = decode.uniform_frames(clips[kind], 3, start_s, end_s)
    assert [frame.asked_s for frame in uniform] == [frame.timestamp_s for frame in exact]
    assert {frame.shift_s for frame in exact} == {0}


def test_a_span_without_a_key_frame_shows_its_own_frames(clips: dict[str, Path]) -> None:
    path = clips["short_gop.mp4"]
    before_s, after_s = key_times(path)[1:3]
    start_s, end_s = before_s + 0.1, after_s - 0.1
    asked = [start_s, end_s]
    found = decode.frames_at(path, asked, mode="nearest-iframe", span_s=(start_s, end_s))
    for frame, expected in zip(found, decode.frames_at(path, asked), strict=True):
        assert frame.timestamp_s == expected.timestamp_s
        assert np.array_equal(frame.rgb, expected.rgb)


def test_a_key_frame_that_an_edit_list_leaves_out_is_not_shown(data_root: Path) -> None:
    path = data_root / "hard" / "discard_first_keyframe.mp4"
    keys = key_times(path)
    assert keys and keys[0] > 0  # the first frame on show is none
    for time_s in (0.0, 0.1, 0.35, 0.99):
        (frame,) = decode.frames_at(path, [time_s], mode="nearest-iframe")
        assert frame.timestamp_s == nearest(keys, time_s)
        assert np.array_equal(frame.rgb, on_show(whole(path), frame.timestamp_s)[1])


@pytest.mark.parametrize("frames", [5, 14])
def test_what_an_edit_list_cuts_off_is_not_shown(clips: dict[str, Path], tmp_path: Path, frames: int) -> None:
    cut = cut_by_edit_list(clips["short_gop.mp4"], tmp_path / "cut.mp4", frames)
    every = [i / FPS for i in range(FRAMES - frames)]
    assert [number_in(frame.rgb) for frame in decode.frames_at(cut, every)] == list(range(frames, FRAMES))
    keys = [time_s for time_s in key_times(clips["short_gop.mp4"]) if time_s * FPS >= frames]
    for time_s, frame in zip(every, decode.frames_at(cut, every, mode="nearest-iframe"), strict=True):
        nearest_s = nearest([key_s - frames / FPS for key_s in keys], time_s)
        assert abs(frame.shift_s) == pytest.approx(abs(time_s - nearest_s), abs=1e-9)
        assert number_in(frame.rgb) == round(frame.timestamp_s * FPS) + frames


def test_key_frames_that_do_not_stand_alone_are_not_shown(tmp_path: Path) -> None:
    """Refreshed a column at a time, a picture is whole long after the packet that is called a key frame."""
    options = {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}
    path = write_clip(tmp_path / "refreshed.mp4", options=options)
    found = decode.frames_at(path, [0.0, 1.3, 3.9], mode="nearest-iframe")
    for frame in found:
        assert np.array_equal(frame.rgb, on_show(whole(path), frame.timestamp_s)[1])


def test_an_index_of_false_key_frames_is_not_believed(clips: dict[str, Path], tmp_path: Path) -> None:
    data = clips["short_gop.mp4"].read_bytes()
    liar = tmp_path / "liar.mp4"
    liar.write_bytes(data.replace(b"stss", b"free"))  # without the table of key frames every frame is one
    truth = whole(clips["short_gop.mp4"])
    for frame in decode.frames_at(liar, [0.3, 1.25, 2.9], mode="nearest-iframe"):
        assert np.array_equal(frame.rgb, on_show(truth, frame.timestamp_s)[1])


def test_a_file_whose_index_is_not_complete(clips: dict[str, Path], tmp_path: Path) -> None:
    path = fragmented(clips["short_gop.mp4"], tmp_path / "fragments.mp4")
    keys = key_times(path)
    assert len(keys) >= 5
    times = [0.0, 0.7, 1.9, 3.5]
    found = decode.frames_at(path, times, mode="nearest-iframe")
    assert [frame.timestamp_s for frame in found] == [nearest(keys, time_s) for time_s in times]
    assert [number_in(frame.rgb) for frame in found] == [round(f.timestamp_s * 20) for f in found]


def test_only_the_key_frames_that_are_needed_are_decoded(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = 0
    frames, lone = frame_source.Video.frames, key_frames._KeyWalker._decode

    def counting(video: frame_source.Video) -> Iterator[av.VideoFrame]:
        nonlocal decoded
        for frame in frames(video):
            decoded += 1
            yield frame

    def counting_lone(walker: key_frames._KeyWalker, packet: av.Packet) -> av.VideoFrame:
        nonlocal decoded
        decoded += 1
        return lone(walker, packet)

    monkeypatch.setattr(frame_source.Video, "frames", counting)
    monkeypatch.setattr(key_frames._KeyWalker, "_decode", counting_lone)
    for kind in ("short_gop.mp4", "no_b.mkv", "h264.ts"):
        decoded = 0
        times = [0.0, 0.1, 3.2, 3.25, 3.3]
        assert len(list(key_frames.nearest_key_frames(str(clips[kind]), Limits(), times_s=times))) == 5
        assert decoded <= 1 + 3, kind  # the first frame tells when the clip begins


def test_uniform_frames_repeat_the_only_key_frame(clips: dict[str, Path]) -> None:
    found = decode.uniform_frames(clips["vp9.webm"], 4, mode="nearest-iframe")
    assert {frame.timestamp_s for frame in found} == {0.0}
    assert [frame.shift_s for frame in found] == [frame.asked_s for frame in found]
    assert len({id(frame.rgb) for frame in found}) == 1
    assert number_in(found[0].rgb) == 0 and len(whole(clips["vp9.webm"])) == FRAMES
