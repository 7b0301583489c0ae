"""Where a question's video is found, and folders of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from share4video.errors import UserError
from share4video.evaluation.grids import Span, grid, locate
from share4video.evaluation.questions import read_questions
from share4video.media.limits import MediaError
from tests.evaluation.material import record, write_questions


def frame_folder(folder: Path, frames: int) -> Path:
    """Write frames whose grey level is ten times their number."""
    folder.mkdir(parents=True)
    for number in range(1, frames + 1):
        level = np.full((16, 16, 3), 10 * number, np.uint8)
        Image.fromarray(level).save(folder / f"{number:05d}.jpg", quality=100)
    return folder


def numbers_shown(image: Image.Image) -> list[int]:
    """Read the frame numbers back from a 4x4 grid of 16-pixel frames."""
    pixels = np.asarray(image.convert("L"), dtype=np.float64)
    return [round(pixels[row * 66 + 8, column * 66 + 8] / 10) for row in range(4) for column in range(4)]


def test_released_folders_are_known_and_the_clips_folder_comes_first(tmp_path: Path) -> None:
    questions = read_questions(
        write_questions(tmp_path / "q", {"object_shuffle": [record("v.mp4", "?", ["a", "b"], "a")]})
    )
    clips = tmp_path / "clips"
    released = clips / "perception" / "videos" / "v.mp4"
    released.parent.mkdir(parents=True)
    released.touch()
    assert locate(questions, clips)[questions[0].id].path == released
    (clips / "v.mp4").touch()
    assert locate(questions, clips)[questions[0].id].path == clips / "v.mp4"


def test_missing_videos_are_counted(tmp_path: Path) -> None:
    records = [record(name, "?", ["a", "b"], "a") for name in ("v.mp4", "v.mp4", "w.mp4")]
    questions = read_questions(write_questions(tmp_path / "q", {"t": records}))
    with pytest.raises(UserError, match=r"2 of the questions' videos are missing, first of all v\.mp4"):
        locate(questions, tmp_path)
    with pytest.raises(UserError, match="clips folder is missing"):
        locate(questions, tmp_path / "nowhere")


def test_a_place_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    video = f"{'x' * 300}.mp4"
    questions = read_questions(write_questions(tmp_path / "q", {"t": [record(video, "?", ["a", "b"], "a")]}))
    for clips in (tmp_path, tmp_path / ("y" * 300)):
        with pytest.raises(UserError, match="cannot read the clips folder: File name too long") as caught:
            locate(questions, clips)
        assert caught.value.where.startswith(str(clips))


def test_a_folder_of_frames_is_sampled_over_its_whole_length(tmp_path: Path) -> None:
    folder = frame_folder(tmp_path / "frames", 17)
    assert numbers_shown(grid(Span(folder, None, None), 16)) == list(range(1, 17))


def test_a_span_of_a_folder_counts_three_frames_a_second(tmp_path: Path) -> None:
    folder = frame_folder(tmp_path / "frames", 24)
    shown = numbers_shown(grid(Span(folder, 2.0, 4.0), 16))  # frames 6 to 12
    assert (shown[0], shown[-1]) == (6, 12)
    assert shown == sorted(shown)
    beyond = numbers_shown(grid(Span(folder, 7.0, 99.0), 16))
    assert (beyond[0], beyond[-1]) == (21, 24)


def test_a_broken_folder_is_a_media_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="no frames"):
        grid(Span(tmp_path / "empty", None, None), 16)
    folder = frame_folder(tmp_path / "frames", 3)
    (folder / "00002.jpg").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"00002\.jpg"):
        grid(Span(folder, None, None), 16)


def test_a_frame_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    Image.new("L", (8192, 4096)).save(folder / "00001.jpg")
    with pytest.raises(MediaError, match="8192 x 4096"):
        grid(Span(folder, None, None), 16)
