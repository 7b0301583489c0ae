"""The modes of choosing key frames, on real files; the released script's beside a restatement of it."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import ValidationError

from share4video.config import KeyframeConfig
from share4video.curation.encoders import DESCRIPTOR, Rgb
from share4video.curation.samples import choose, sample
from share4video.media.limits import MediaError
from tests.media.clips import read_through

NTSC, FILM = Fraction(30000, 1001), Fraction(24000, 1001)
REFERENCE = KeyframeConfig(mode="reference")
SCENE_S = (3.3, 4.1, 9.7, 13.2, 21.0)  # when the picture changes


def drawn(number: int, fps: float) -> Rgb:
    """A square that crawls along and jumps to another place and colour at each change of scene."""
    scene = sum(number / fps >= change for change in SCENE_S)
    frame = np.full((48, 64, 3), 90, np.uint8)
    x, y = 4 + 14 * (scene % 4) + number // 40 % 4, 4 + 9 * (scene % 5)
    frame[y : y + 9, x : x + 9] = ((220, 30, 30), (30, 200, 60), (40, 60, 230))[scene % 3]
    return frame


def write(
    path: Path, rate: Fraction, frames: int, *, flat: int = 0, steps_ms: tuple[int, ...] | None = None
) -> Path:
    """Write a film, the first ``flat`` pictures of one grey; ``steps_ms`` makes its frame rate vary."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 60
        stream.thread_count = 1
        base = Fraction(1, 1000) if steps_ms else 1 / rate
        stream.codec_context.time_base = base
        time = 0
        for number in range(frames):
            picture = np.full((48, 64, 3), 128, np.uint8) if number < flat else drawn(number, float(rate))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (time if steps_ms else number), base
            time += steps_ms[number % len(steps_ms)] if steps_ms else 0
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def as_the_script(path: Path, threshold: float, shown: list[Rgb] | None = None) -> list[int] | None:
    """Go through all of a film's frames as the released script does; return the numbers of those it keeps.

    None where the script writes nothing.
    """
    shown = shown or [rgb for _, rgb in read_through(path)]
    with av.open(str(path)) as container:
        whole_fps = int(float(container.streams.video[0].average_rate))
    hop = math.ceil(whole_fps * 2)
    skipped = 0
    if len(np.unique(shown[0])) == 1:
        while skipped + 1 < hop:
            skipped += 1
            if len(np.unique(shown[skipped])) > 1:
                break
    kept: list[Rgb] = []
    for rgb in shown[skipped:]:
        if len(kept) / whole_fps > 120:
            break
        kept.append(rgb)
    if len(kept) <= math.ceil(whole_fps * 10):
        return None
    keys = [0]
    for number in range(1, len(kept)):
        if number % hop == 0:
            two = DESCRIPTOR.encode([kept[keys[-1]], kept[number]])
            if float(two[0] @ two[1]) < threshold:
                keys.append(number)
    if len(keys) == 1 or len(kept) - keys[-1] >= hop:
        keys.append(len(kept) - 1)
    return [skipped + number for number in keys]


def key_times_s(path: Path, config: KeyframeConfig, *, end_s: float = 1000.0) -> list[float]:
    found = sample(path, 0.0, end_s, config)
    chosen = choose(found, DESCRIPTOR.encode(found.pictures), DESCRIPTOR, config)
    return [found.frames[key.sample].timestamp_s for key in chosen]


@pytest.mark.parametrize(
    ("rate", "frames", "flat"),
    [
        (Fraction(30), 400, 0),
        (NTSC, 500, 0),  # 29 a second: samples 58 frames apart
        (FILM, 500, 0),
        (FILM, 276 + 1, 0),  # the last frame is the sixth sample, too
        (FILM, 276 + 46, 0),
        (NTSC, 400, 1),
        (NTSC, 400, 23),
        (FILM, 400, 45),
        (FILM, 400, 46),
        (FILM, 400, 90),  # flat for longer than one interval
    ],
)
def test_reference_mode_chooses_what_the_script_does(
    tmp_path: Path, rate: Fraction, frames: int, flat: int
) -> None:
    film = write(tmp_path / "film.mp4", rate, frames, flat=flat)
    shown = read_through(film)
    for threshold in (-1.0, 0.97, 1.0):  # the first and the last, some, nearly all
        expected = as_the_script(film, threshold, [rgb for _, rgb in shown])
        assert expected is not None and expected[0] == min(flat, math.ceil(int(rate) * 2) - 1)
        # True times, not numbers over the cut rate.
        config = REFERENCE.model_copy(update={"threshold": threshold})
        assert key_times_s(film, config) == [shown[number][0] for number in expected]
    for frame in sample(film, 0.0, 1000.0, REFERENCE).frames:
        assert any(time_s == frame.timestamp_s and np.array_equal(rgb, frame.rgb) for time_s, rgb in shown)


def test_reference_mode_counts_frames_also_where_the_rate_varies(tmp_path: Path) -> None:
    film = write(tmp_path / "film.mkv", Fraction(20), 420, steps_ms=(20, 140, 40, 40, 60, 20, 20, 80))
    expected = as_the_script(film, 0.97)
    assert expected is not None and len(expected) > 2
    shown = read_through(film)
    assert key_times_s(film, REFERENCE) == [shown[number][0] for number in expected]


def test_reference_mode_stops_at_120_of_its_seconds(tmp_path: Path) -> None:
    film = write(tmp_path / "film.mp4", Fraction(4), 500)
    expected = as_the_script(film, 0.97)
    assert expected is not None and expected[-1] == 480
    assert key_times_s(film, REFERENCE) == [number / 4 for number in expected]


@pytest.mark.parametrize(("frames", "refused"), [(290, True), (291, False)])
def test_reference_mode_refuses_what_the_script_writes_nothing_of(
    tmp_path: Path, frames: int, refused: bool
) -> None:
    film = write(tmp_path / "film.mp4", NTSC, frames)
    assert (as_the_script(film, 0.97) is None) == refused
    if not refused:
        assert key_times_s(film, REFERENCE)[0] == 0
        return
    with pytest.raises(MediaError) as caught:
        sample(film, 0.0, 1000.0, REFERENCE)
    assert (caught.value.reason, caught.value.measured, caught.value.bound) == ("too_short", 290, 291)


def test_reference_mode_refuses_less_than_a_frame_a_second(tmp_path: Path) -> None:
    film = write(tmp_path / "film.mp4", Fraction(1, 2), 30)
    with pytest.raises(MediaError) as caught:
        sample(film, 0.0, 1000.0, REFERENCE)
    assert (caught.value.reason, caught.value.measured) == ("low_fps", 0.5)


def test_reference_mode_counts_from_the_start_of_a_span(tmp_path: Path) -> None:
    film = write(tmp_path / "film.mp4", Fraction(10), 200)
    found = sample(film, 3.0, 17.0, REFERENCE)
    assert [frame.timestamp_s for frame in found.frames] == [3, 5, 7, 9, 11, 13, 15, 16.9]


def test_uniform_mode_keeps_every_sample_and_encodes_none(tmp_path: Path) -> None:
    film = write(tmp_path / "film.mp4", FILM, 120)
    config = KeyframeConfig(mode="uniform", interval_s=1)
    found = sample(film, 0.0, 5.0, config)
    chosen = choose(found, None, None, config)
    assert [key.sample for key in chosen] == list(range(5)) and not any(key.similarity for key in chosen)
    assert [round(frame.timestamp_s, 2) for frame in found.frames] == [0, 0.96, 1.96, 2.96, 3.96]


def test_motion_that_the_encoder_does_not_see_is_kept(tmp_path: Path) -> None:
    film = write(tmp_path / "film.mp4", Fraction(30), 400)
    blind = {"threshold": -1.0}
    assert len(key_times_s(film, KeyframeConfig(**blind), end_s=13.3)) == 2
    lively = KeyframeConfig(**blind, motion_threshold=0.004)
    times_s = key_times_s(film, lively, end_s=13.3)
    assert times_s[1:3] == [4.0, 6.0]  # after the first two changes of scene
    calm = KeyframeConfig(**blind, motion_threshold=5.0)
    assert len(key_times_s(film, calm, end_s=13.3)) == 2


@pytest.mark.parametrize("mode", ["reference", "uniform"])
@pytest.mark.parametrize("trigger", ["max_gap_s", "motion_threshold"])
def test_triggers_are_for_the_paper_alone(mode: str, trigger: str) -> None:
    with pytest.raises(ValidationError, match="need mode paper"):
        KeyframeConfig.model_validate({"mode": mode, trigger: 1.0})
