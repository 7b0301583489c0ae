"""When frames come on show, told without decoding them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from share4video.media.decode import frame_times, frames_at
from share4video.media.limits import MediaError
from tests.media.clips import FPS, KINDS, number_in, read_through, write_clip


@pytest.mark.parametrize("name", KINDS)
def test_times_are_those_of_the_decoded_frames(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, **KINDS[name])
    shown = [time_s for time_s, _ in read_through(path)]
    times_s, fps = frame_times(path, 0.0, 1000.0)
    assert times_s == shown
    if "times_ms" not in KINDS[name]:
        assert fps == pytest.approx(FPS, rel=1e-3)
    start, end = shown[10], shown[30]
    assert frame_times(path, start, end)[0] == shown[10:30]
    found = frames_at(path, [times_s[number] for number in (40, 3, 79)])
    assert [number_in(frame.rgb) for frame in found] == [40, 3, 79]


def test_real_files(data_root: Path) -> None:
    paths = sorted((data_root / "videos").glob("*.mp4"))
    for path in paths[:3]:
        times_s, fps = frame_times(path, 0.0, 1000.0)
        assert times_s == [time_s for time_s, _ in read_through(path)]
        assert fps == pytest.approx(1 / float(np.median(np.diff(times_s))), rel=0.01)


def test_a_span_must_be_one(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=10)
    for start_s, end_s in ((1.0, 1.0), (-1.0, 1.0), (0.0, float("inf"))):
        with pytest.raises(ValueError, match="span"):
            frame_times(path, start_s, end_s)
    (tmp_path / "none.mp4").write_bytes(b"no video")
    with pytest.raises(MediaError):
        frame_times(tmp_path / "none.mp4", 0.0, 1.0)
