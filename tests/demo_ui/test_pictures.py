"""From uploaded files to the pictures the models are shown, with real files."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from benchmarks.attack_media import many_scans
from share4video.demo_ui.examples import examples_in, synthetic_examples
from share4video.demo_ui.page import Page
from share4video.demo_ui.pictures import Picture, Uploads
from share4video.demo_ui.settings import Bounds
from share4video.errors import UserError
from share4video.media.compose import frame_grid
from share4video.media.decode import uniform_frames
from share4video.media.guard import pool
from share4video.media.limits import Limits
from share4video.synthetic.clips import write_clip, write_mp4
from share4video.synthetic.domain import is_synthetic
from share4video.synthetic.world import sample_clip


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "shapes.mp4"
    write_clip(path, sample_clip(3))
    return path


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 6 s that is none of the synthetic world's."""
    path = tmp_path_factory.mktemp("clips") / "noise.mp4"
    rng = np.random.default_rng(1)
    write_mp4(path, (rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(12)), fps=2)
    return path


@pytest.mark.parametrize("frames", [1, 9, 16])
def test_a_video_is_shown_as_the_released_models_grid(synthetic: Path, frames: int) -> None:
    picture = _picture(synthetic, frames)
    shown = np.asarray(Image.open(io.BytesIO(picture.image)))
    grid = frame_grid([frame.image for frame in uniform_frames(synthetic, frames)])
    assert np.array_equal(shown, np.asarray(grid))
    assert picture.is_grid and f"{frames} frames on the grid" in picture.facts
    assert "12.6 s · 256 x 256" in picture.facts


def test_an_image_is_shown_upright_and_without_its_metadata(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: the camera's right is up
    exif[0x010E] = "at home"
    Image.new("RGB", (40, 20), (10, 200, 10)).save(photo, exif=exif)
    picture = _picture(photo)
    image = Image.open(io.BytesIO(picture.image))
    assert image.size == (20, 40) and not image.getexif() and b"at home" not in picture.image
    assert not picture.is_grid


def test_files_that_cannot_be_used_are_refused_in_a_sentence(synthetic: Path, tmp_path: Path) -> None:
    text = tmp_path / "letter.mp4"
    text.write_text("Dear reader, this is no video.\n" * 50)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(synthetic.read_bytes()[: synthetic.stat().st_size // 2])
    playlist = tmp_path / "list.mp4"
    playlist.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    damaged = tmp_path / "damaged.png"
    Image.new("RGB", (400, 400)).save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:200])
    wide = tmp_path / "wide.png"
    Image.new("RGB", (5000, 100)).save(wide)
    small = Bounds(max_pixels=64 * 64)
    for path, bounds, sentence in [
        (text, Bounds(), r"the file cannot be used: .*\(letter.mp4\): give a video"),
        (playlist, Bounds(), "the file cannot be used"),
        (cut, Bounds(), "the file cannot be used"),
        (damaged, Bounds(), "the image cannot be decoded"),
        (wide, small, "a picture of 5000 x 100 is over the 4096 pixels allowed"),
        (synthetic, small, "the file cannot be used: .*4096.*trim it or make it smaller"),
        (synthetic, Bounds(max_duration_s=5.0), "13 seconds is longer than the 5 this app takes"),
        (synthetic, Bounds(max_bytes=1000), "over the 1000 allowed"),
        (tmp_path / "gone.mp4", Bounds(), "the file cannot be used"),
    ]:
        with pytest.raises(UserError, match=sentence):
            _picture(path, bounds=bounds)


def test_an_image_that_takes_minutes_is_given_up_and_its_place_freed_when_nobody_waits(
    tmp_path: Path,
) -> None:
    scans, sound = tmp_path / "scans.jpg", tmp_path / "sound.jpg"
    scans.write_bytes(many_scans(2000, 100_000))
    Image.new("RGB", (64, 64)).save(sound)
    with pytest.raises(UserError, match=r"longer than the 0\.5 s allowed"):
        _picture(scans, bounds=Bounds(decode_s=0.5))

    async def leave() -> Picture:
        uploads = Uploads(Bounds(decoders=1))
        left = asyncio.create_task(uploads.picture(scans, 16))
        while not pool().pids() or not busy():
            await asyncio.sleep(0.01)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        return await uploads.picture(sound, 16)  # it would wait for a minute

    def busy() -> bool:
        return any(psutil.Process(pid).status() == psutil.STATUS_RUNNING for pid in pool().pids())

    assert asyncio.run(asyncio.wait_for(leave(), 30)).kind == "image"


def test_a_model_of_synthetic_clips_is_not_asked_about_others(synthetic: Path, noise: Path) -> None:
    def asked(path: Path) -> Picture:
        return asyncio.run(Uploads(Bounds()).picture(path, 16, domain="synthetic", model="nano"))

    assert asked(synthetic).refusal is None
    assert "nano knows only the synthetic clips" in str(asked(noise).refusal)
    with pytest.raises(UserError, match="nano knows only the synthetic clips"):
        asyncio.run(
            Uploads(Bounds()).key_frames(noise, interval_s=1.0, most=30, domain="synthetic", model="nano")
        )


def test_key_frames_are_bounded_and_their_number_is_told(noise: Path) -> None:
    uploads = Uploads(Bounds())
    shown = asyncio.run(uploads.key_frames(noise, interval_s=1.0, most=6))
    assert [frame.timestamp_s for frame in shown.frames] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(UserError, match=r"the clip has 6 key frames, and at most 5 .* longer intervals"):
        asyncio.run(uploads.key_frames(noise, interval_s=1.0, most=5))


def test_only_files_below_the_upload_folder_are_uploads(tmp_path: Path, synthetic: Path) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    inside = folder / "clip.mp4"
    inside.write_bytes(b"clip")
    (folder / "link.mp4").symlink_to(synthetic)
    page = Page(None, None, None, Uploads(Bounds()), folder)
    assert page.uploaded(str(inside)) == inside
    for given in ("/etc/passwd", str(folder / ".." / "x"), str(folder / "link.mp4"), str(folder), "", None):
        assert page.uploaded(given) is None


def test_examples_are_the_users_videos_and_synthetic_clips(
    synthetic: Path, noise: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "b.mp4").write_bytes(noise.read_bytes())
    (own / "a.MP4").write_bytes(synthetic.read_bytes())
    (own / "broken.mp4").write_text("no video")
    (own / "notes.txt").write_text("no video either")
    made = tmp_path / "made"
    made.mkdir()
    found = examples_in(own, made, Limits())
    assert [one.name for one in found] == ["a", "b"]
    assert len({one.poster for one in found}) == 2 and all(Image.open(one.poster) for one in found)
    ours = synthetic_examples(made)
    assert all(is_synthetic([f.rgb for f in uniform_frames(one.path, 3)]) for one in ours)
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, sentence in [(empty, "no video that can be decoded"), (tmp_path / "none", "cannot read")]:
        with pytest.raises(UserError, match=sentence):
            examples_in(folder, made, Limits())


def _picture(path: Path, frames: int = 16, *, bounds: Bounds | None = None) -> Picture:
    return asyncio.run(Uploads(replace(bounds or Bounds())).picture(path, frames))
