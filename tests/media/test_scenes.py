"""Videos split where they cut, by the time each frame is really shown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from share4video.media.decode import frames_at, uniform_frames
from share4video.media.limits import Limits, MediaError
from share4video.media.painter import Rgb
from share4video.media.probe import ClipInfo, Splitting, probe, split

pytest.importorskip("scenedetect")

HOW = Splitting(threshold=3.0, min_scene_s=0.6, wall_s=120)
COLOURS = ((200, 40, 40), (40, 60, 200), (60, 190, 60))


def drifting(colour: tuple[int, int, int], step: int) -> Rgb:
    """A scene: a bright bar that moves to and fro over a background of one colour."""
    picture = np.full((64, 96, 3), colour, np.uint8)
    place = abs(2 * step % 160 - 80)
    picture[:, place : place + 12] = (230, 230, 230)
    return picture


def write_scenes(path: Path, times_ms: Sequence[Sequence[int]], *, start_ms: int = 0) -> Path:
    """Write scenes of other colours; of each, when its frames are shown."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for scene, shown in enumerate(times_ms):
            for step, time_ms in enumerate(shown):
                frame = av.VideoFrame.from_ndarray(drifting(COLOURS[scene % 3], step), format="rgb24")
                frame.pts, frame.time_base = start_ms + time_ms, Fraction(1, 1000)
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def every(step_ms: int, begin_ms: int, end_ms: int) -> list[int]:
    return list(range(begin_ms, end_ms, step_ms))


def scenes(path: Path, how: Splitting = HOW) -> list[ClipInfo]:
    return split(probe(path), path, how)


def spans(clips: list[ClipInfo]) -> list[tuple[float, float]]:
    return [(clip.start_s, clip.end_s) for clip in clips]


def colour_of(picture: Rgb) -> int:
    middle = np.median(picture.reshape(-1, 3), axis=0)
    return int(np.argmin([np.abs(middle - colour).sum() for colour in COLOURS]))


@pytest.mark.parametrize("name", ["cfr.mp4", "vfr.mp4", "vfr.mkv", "late.mp4"])
def test_scenes_begin_at_the_time_of_their_first_frame(tmp_path: Path, name: str) -> None:
    second = every(40, 3000, 5000) if "vfr" not in name else [*every(20, 3000, 3400), *every(130, 3400, 5000)]
    times_ms = [every(40, 0, 3000), second, every(50, 5000, 7000)]
    path = write_scenes(tmp_path / name, times_ms, start_ms=7300 if name == "late.mp4" else 0)
    found = scenes(path)
    assert spans(found)[:2] == [(0.0, 3.0), (3.0, 5.0)]
    assert (len(found), found[2].start_s) == (3, 5.0)
    assert found[2].end_s == probe(path).end_s
    assert [clip.scene for clip in found] == [0, 1, 2]
    assert [clip.frames for clip in found] == [len(shown) for shown in times_ms]
    lengths_s = [clip.end_s - clip.start_s for clip in found]
    assert [clip.duration_s for clip in found] == pytest.approx(lengths_s)
    assert found[0].fps == pytest.approx(25)
    for number, clip in enumerate(found):  # no frame of another scene is within a scene's span
        assert {colour_of(f.rgb) for f in uniform_frames(path, 12, clip.start_s, clip.end_s)} == {number}
        assert colour_of(frames_at(path, [clip.start_s])[0].rgb) == number
        assert (clip.frozen_share, clip.single_colour_share) == (0, 0)


def test_scores_are_of_the_scene(tmp_path: Path) -> None:
    path = tmp_path / "dark.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(120):
            rgb = drifting(COLOURS[0], index) if index < 60 else np.full((64, 96, 3), 12, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())
    bright, dark = scenes(path)
    assert (bright.black_share, bright.frozen_share) == (0, 0)
    assert (dark.black_share, dark.frozen_share) == (1, 1)
    assert 0.3 < probe(path).black_share < 0.7  # type: ignore[operator]


def test_a_cut_too_soon_is_passed_over(tmp_path: Path) -> None:
    path = write_scenes(
        tmp_path / "s.mp4", [every(40, 0, 2000), every(40, 2000, 2400), every(40, 2400, 5000)]
    )
    assert [start for start, _ in spans(scenes(path))] == [0.0, 2.0]
    quick = Splitting(threshold=3.0, min_scene_s=0.2, wall_s=120)
    assert [start for start, _ in spans(scenes(path, quick))] == [0.0, 2.0, 2.4]


def test_a_video_of_one_scene_stays_whole(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "one.mp4", [every(40, 0, 4000)])
    whole = probe(path)
    assert split(whole, path, HOW) == [whole]
    assert whole.scene is None


def test_a_video_known_by_its_header_alone_stays_whole(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "two.mp4", [every(40, 0, 3000), every(40, 3000, 6000)])
    header = probe(path, decode_up_to_s=2)
    assert split(header, path, HOW) == [header]


def test_a_real_video_is_cut_where_the_detector_cuts_it(data_root: Path) -> None:
    """PySceneDetect with a reader of its own, which is right for a plain file, is the oracle."""
    from scenedetect import AdaptiveDetector, detect

    path = data_root / "videos" / "dj_video1.mp4"
    expected = detect(str(path), AdaptiveDetector(min_scene_len=0.6))
    found = scenes(path)
    assert len(found) == len(expected) == 3
    for clip, (begin, _) in zip(found, expected, strict=True):
        assert clip.start_s == pytest.approx(begin.seconds, abs=0.5 / 24)


def test_limits_hold(tmp_path: Path, data_root: Path) -> None:
    path = data_root / "videos" / "dj_video3.mp4"
    whole = probe(path)
    with pytest.raises(MediaError) as caught:
        split(whole, path, Splitting(3.0, 0.6, wall_s=0.05))
    assert caught.value.reason == "decode_timeout"
    with pytest.raises(MediaError) as caught:
        split(whole, path, HOW, Limits(max_pixels=100))
    assert caught.value.reason == "too_large"
    hole = tmp_path / "hole.mp4"  # a place that no sample looks at
    data = bytearray((data_root / "videos" / "dj_video2.mp4").read_bytes())
    middle = len(data) * 2 // 5
    data[middle : middle + 30_000] = os.urandom(30_000)
    hole.write_bytes(data)
    with pytest.raises(MediaError) as caught:
        split(probe(data_root / "videos" / "dj_video2.mp4"), hole, HOW)
    assert caught.value.reason == "unreadable"
