"""The right picture at every time, held against reading each file from start to end."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from share4video.media import decode, frame_source
from share4video.media.limits import Limits, MediaError
from share4video.media.sampling import uniform_indices
from tests.media.clips import FPS, FRAMES, KINDS, Rgb, number_in, on_show, read_through, write_clip

whole = cache(read_through)


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_is_found_at_its_time(clips: dict[str, Path], kind: str) -> None:
    truth = whole(clips[kind])
    found = decode.frames_at(clips[kind], [time_s for time_s, _ in truth])
    assert [frame.timestamp_s for frame in found] == [time_s for time_s, _ in truth]
    assert [number_in(frame.rgb) for frame in found] == list(range(FRAMES))
    assert all(np.array_equal(frame.rgb, rgb) for frame, (_, rgb) in zip(found, truth, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shares=st.lists(st.floats(0, 1.1), min_size=1, max_size=5))
def test_any_times_in_any_order(clips: dict[str, Path], kind: str, shares: list[float]) -> None:
    truth = whole(clips[kind])
    times = [share * truth[-1][0] for share in shares]
    for time_s, frame in zip(times, decode.frames_at(clips[kind], times), strict=True):
        expected_s, rgb = on_show(truth, time_s)
        assert frame.timestamp_s == expected_s
        assert np.array_equal(frame.rgb, rgb)


def test_times_share_frames_and_keep_their_order(clips: dict[str, Path]) -> None:
    late, early, again, beyond = decode.frames_at(clips["plain.mp4"], [3.0, 0.01, 3.02, 900.0])
    assert [number_in(f.rgb) for f in (late, early, again, beyond)] == [60, 0, 60, FRAMES - 1]
    assert late.rgb is again.rgb
    assert late.image.size == (96, 64)
    assert decode.frames_at(clips["plain.mp4"], []) == []


@pytest.mark.parametrize("times", [[-0.1], [float("nan")], [float("inf")]])
def test_times_must_be_times(clips: dict[str, Path], times: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        decode.frames_at(clips["plain.mp4"], times)


def test_max_side_shrinks_and_never_enlarges(clips: dict[str, Path]) -> None:
    small = decode.frames_at(clips["odd.mp4"], [0.5], max_side=48)[0].rgb
    assert small.shape == (33, 48, 3)
    assert number_in(small) == number_in(decode.frames_at(clips["odd.mp4"], [0.5])[0].rgb)
    assert decode.frames_at(clips["odd.mp4"], [0.5], max_side=4000)[0].rgb.shape == (67, 97, 3)
    with pytest.raises(ValueError):
        decode.frames_at(clips["odd.mp4"], [0.5], max_side=0)


@pytest.mark.parametrize(
    ("rotation", "mirrored"), [(90, False), (180, False), (-90, False), (0, True), (90, True), (-90, True)]
)
def test_display_matrix_is_honoured(tmp_path: Path, rotation: int, mirrored: bool) -> None:
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(0, 255, (4, 6, 1), np.uint8), np.ones((16, 16, 3), np.uint8))
    path, fine = tmp_path / "turned.mp4", {"crf": "1"}
    clip = write_clip(path, frames=2, still=blocks, options=fine, rotation=rotation, mirrored=mirrored)
    expected: Rgb = np.rot90(blocks, rotation // 90)
    expected = expected[:, ::-1] if mirrored else expected
    shown = decode.frames_at(clip, [0.0])[0].rgb
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected.astype(int)).mean() < 6


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001)], ids=["29.97", "23.976"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_rates_of_television_do_not_drift(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    clip = write_clip(tmp_path / f"clip.{suffix}", frames=200, fps=rate, gop=50)
    times = [float(index / rate) for index in range(200)]
    tick_s = {"mp4": 0.0, "mkv": 0.001, "ts": 1 / 90000}[suffix]  # what the container rounds to
    found = decode.frames_at(clip, [time_s + tick_s for time_s in times])
    assert [number_in(frame.rgb) for frame in found] == list(range(200))
    assert max(abs(frame.timestamp_s - time_s) for frame, time_s in zip(found, times, strict=True)) <= tick_s


@pytest.mark.parametrize(
    "kind", ["plain.mp4", "vfr.mp4", "late_start.mp4", "vp9.webm", "mpeg4.avi", "h264.ts"]
)
def test_uniform_frames_follow_the_reference_rule(clips: dict[str, Path], kind: str) -> None:
    frames = decode.uniform_frames(clips[kind], 16)
    assert [number_in(frame.rgb) for frame in frames] == uniform_indices(FRAMES, 16)
    truth = whole(clips[kind])
    assert [frame.timestamp_s for frame in frames] == [truth[i][0] for i in uniform_indices(FRAMES, 16)]


@pytest.mark.parametrize(
    ("start_s", "end_s", "indices"),
    [
        (1.0, 2.0, [20 + i for i in uniform_indices(20, 4)]),
        (None, 0.5, uniform_indices(10, 4)),
        (3.9, None, [78 + i for i in uniform_indices(2, 4)]),
        (1.01, 1.02, [20] * 4),
        (50.0, 60.0, [FRAMES - 1] * 4),
    ],
)
def test_uniform_frames_of_a_span(
    clips: dict[str, Path], start_s: float | None, end_s: float | None, indices: list[int]
) -> None:
    frames = decode.uniform_frames(clips["plain.mp4"], 4, start_s, end_s)
    assert [number_in(frame.rgb) for frame in frames] == indices


@pytest.mark.parametrize(("n", "start_s", "end_s"), [(0, None, None), (4, -1.0, None), (4, 2.0, 2.0)])
def test_uniform_frames_need_a_count_and_a_span(
    clips: dict[str, Path], n: int, start_s: float | None, end_s: float | None
) -> None:
    with pytest.raises(ValueError, match="span"):
        decode.uniform_frames(clips["plain.mp4"], n, start_s, end_s)


def decoded_frames(monkeypatch: pytest.MonkeyPatch, path: Path, times: list[float]) -> int:
    """Count the frames decoded to answer, in this process."""
    count = 0
    frames = frame_source.Video.frames

    def counting(video: frame_source.Video) -> Iterator[frame_source.VideoFrame]:
        nonlocal count
        for frame in frames(video):
            count += 1
            yield frame

    monkeypatch.setattr(frame_source.Video, "frames", counting)
    assert len(list(frame_source.frames_on_show(str(path), Limits(), times_s=times))) == len(times)
    return count


@pytest.mark.parametrize("kind", ["short_gop.mp4", "no_b.mkv", "vp8.webm"])
def test_sparse_times_jump_over_short_groups_of_pictures(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    assert decoded_frames(monkeypatch, clips[kind], [0.0, 3.25]) < 20


def test_a_jump_to_any_time_is_not_repeated_in_order(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding times are before presentation times: a jump by them could land behind its target."""
    for time_s in (1.0, 1.55, 1.6, 1.65, 2.35, 2.4, 3.15, 3.2, 3.9):
        assert decoded_frames(monkeypatch, clips["open_gop.mp4"], [time_s]) < 2 + 2 * 16 + 4


def test_dense_times_and_long_groups_are_read_in_order(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = [i / FPS for i in range(FRAMES)]
    assert decoded_frames(monkeypatch, clips["short_gop.mp4"], dense) == FRAMES
    assert decoded_frames(monkeypatch, clips["plain.mp4"], [0.0, 1.0, 3.0]) <= FRAMES + 2


def test_an_index_that_lies_is_not_believed(clips: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(clips["short_gop.mp4"].read_bytes())
    table = data.index(b"stss") + 12  # 4-byte sample numbers of the key frames, after a count
    (count,) = struct.unpack(">I", data[table - 4 : table])
    numbers = struct.unpack_from(f">{count}I", data, table)
    assert numbers[0] == 1 and count >= 5
    struct.pack_into(f">{count - 1}I", data, table + 4, *(number + 5 for number in numbers[1:]))
    liar = tmp_path / "liar.mp4"
    liar.write_bytes(data)
    truth = read_through(liar)
    for index in (20, 39, 41, 70, FRAMES - 1):
        (frame,) = decode.frames_at(liar, [truth[index][0]])
        assert number_in(frame.rgb) == index
        assert np.array_equal(frame.rgb, truth[index][1])


@pytest.mark.parametrize(
    "name",
    ["with space.mp4", "line\nbreak.mp4", "concat:a|b.mp4", "http:evil.mp4", "%05d.mp4", "clip", "x.txt"],
)
def test_names_mean_nothing(clips: dict[str, Path], tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(clips["plain.mp4"].read_bytes())
    assert number_in(decode.frames_at(path, [1.0])[0].rgb) == 20


def test_a_name_that_is_not_utf8(clips: dict[str, Path], tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    path.write_bytes(clips["plain.mp4"].read_bytes())
    assert number_in(decode.frames_at(path, [1.0])[0].rgb) == 20


def test_a_playlist_opens_nothing(clips: dict[str, Path], tmp_path: Path) -> None:
    for name, text in {
        "list.m3u8": f"#EXTM3U\n#EXTINF:4,\n{clips['h264.ts']}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{clips['plain.mp4']}'\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(MediaError) as caught:
            decode.frames_at(tmp_path / name, [0.0])
        assert caught.value.reason == "not_video"


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.mp4", "No such file"), (tmp_path, "directory")):
        with pytest.raises(MediaError, match=words) as caught:
            decode.frames_at(path, [0.0])
        assert caught.value.reason == "unreadable"
