"""Every real file at hand, at many moments, held bit by bit against a plain reading of the whole file."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from share4video.media import decode
from share4video.media.limits import MediaError
from share4video.media.probe import probe
from tests.media import oracle

VIDEOS = [
    "C_1_0",
    "dj_video1",
    "dj_video2",
    "dj_video3",
    "hitting_baseball",
    "jesse_dance",
    "koala_a",
    "koala_b",
    "making_cake",
    "playing_guitar",
    "sample_demo_1",
    "yoga",
]
HARD = {  # frames that are shown
    "av1_video.mkv": 125,
    "discard_first_keyframe.mp4": 25,
    "h264_10bits.mp4": 30,
    "h265_video.mp4": 10,
    "nasa_13013_rotated.mp4": 17,
    "test_non_zero_start.mp4": 12,
    "testsrc2_odd_height_and_width_444.mp4": 25,
}
REFUSED = {"corrupted.mp4": ("unreadable", "the video is damaged after 2.70 s")}
QUARTER_TURNS = {"nasa_13013_rotated.mp4": 1}  # anti-clockwise, to stand upright

CHOSEN = 8  # frames asked for at their very time and just before it, and as many moments at random


def moments(shown_s: list[float], name: str) -> list[float]:
    """Every second, any moments, the very moments of frames, just before them, and after the end."""
    rng = random.Random(name)
    times = [float(second) for second in range(int(shown_s[-1]) + 1)]
    chosen = rng.choices(shown_s, k=CHOSEN)
    times += [*chosen, *(max(0.0, time_s - 1e-4) for time_s in chosen)]
    times += [rng.uniform(0, shown_s[-1]) for _ in range(CHOSEN)]
    return [*times, shown_s[0], shown_s[-1], shown_s[-1] + 7]


@pytest.mark.parametrize(
    "name", [f"videos/{name}.mp4" for name in VIDEOS] + [f"hard/{name}" for name in HARD]
)
def test_every_moment_shows_what_the_whole_file_shows(data_root: Path, name: str) -> None:
    path = data_root / name
    shown_s, keys_s = oracle.frame_times(path)
    if path.name in HARD:
        assert len(shown_s) == HARD[path.name] == probe(path).frames
    asked = moments(shown_s, name)
    truth = oracle.pictures(path, shown_s, [*asked, *keys_s])
    turns = QUARTER_TURNS.get(path.name, 0)
    for time_s, frame in zip(asked, decode.frames_at(path, asked), strict=True):
        expected_s, rgb = truth[time_s]
        assert (frame.timestamp_s, frame.asked_s) == (expected_s, time_s)
        assert np.array_equal(frame.rgb, np.rot90(rgb, turns))
    for time_s, frame in zip(asked, decode.frames_at(path, asked, mode="nearest-iframe"), strict=True):
        nearest_s = min(keys_s, key=lambda key_s: (round(abs(key_s - time_s), 6), key_s))
        assert (frame.timestamp_s, frame.shift_s) == (nearest_s, time_s - nearest_s)
        assert np.array_equal(frame.rgb, np.rot90(truth[nearest_s][1], turns))


@pytest.mark.parametrize("name", REFUSED)
def test_a_damaged_file_is_refused_where_it_is_damaged(data_root: Path, name: str) -> None:
    path = data_root / "hard" / name
    before = islice(oracle.read_in_order(path), 11)
    for frame, (time_s, stored) in zip(
        decode.frames_at(path, [i / 10 for i in range(11)]), before, strict=True
    ):
        assert frame.timestamp_s == time_s
        assert np.array_equal(frame.rgb, stored.to_ndarray(format="rgb24"))
    for look in (
        probe,
        lambda path: decode.frames_at(path, [4.0]),
        lambda path: decode.uniform_frames(path, 4),
    ):
        with pytest.raises(MediaError) as caught:
            look(path)
        assert (caught.value.reason, caught.value.sentence) == REFUSED[name]


def test_every_file_has_its_expectation(data_root: Path) -> None:
    assert {path.name for path in (data_root / "hard").iterdir()} == {*HARD, *REFUSED}
    assert {path.name for path in (data_root / "videos").iterdir()} == {f"{name}.mp4" for name in VIDEOS}
