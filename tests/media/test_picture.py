"""Pictures other people made, decoded in a guarded process."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.attack_media import SVG, many_scans
from share4video.media.limits import Limits, MediaError
from share4video.media.picture import read_picture

FORMATS = ("JPEG", "PNG", "WEBP")


def written(path: Path, image: Image.Image, kind: str, **options: object) -> Path:
    image.save(path, kind, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_what_a_picture_is(tmp_path: Path, kind: str, mode: str) -> None:
    if (kind, mode) == ("JPEG", "RGBA"):
        pytest.skip("there is no such JPEG")
    image = Image.new(mode, (20, 10), 255 if mode == "L" else (200, 100, 50, 255)[: len(mode)])
    path = written(tmp_path / "picture", image, kind)
    found = read_picture(path, FORMATS, pixels=True)
    assert (found.format, found.width, found.height) == (kind, 20, 10)
    assert found.rgb is not None
    assert np.array_equal(found.rgb, np.asarray(Image.open(path).convert("RGB")))
    assert read_picture(path, FORMATS).rgb is None


def test_a_jpeg_of_several_pictures_is_its_first(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    path = written(tmp_path / "phone.jpg", first, "MPO", save_all=True, append_images=[second])
    found = read_picture(path, FORMATS, pixels=True)
    assert found.format == "MPO"
    assert found.rgb is not None and found.rgb[8, 8, 0] > 200


def test_pictures_over_a_limit(tmp_path: Path) -> None:
    path = written(tmp_path / "large.png", Image.new("L", (400, 300)), "PNG")
    with pytest.raises(MediaError, match="400 x 300 is over the 100000 pixels") as refused:
        read_picture(path, FORMATS, limits=Limits(max_pixels=100_000))
    assert (refused.value.reason, refused.value.measured) == ("too_large", 120_000)
    (tmp_path / "scans.jpg").write_bytes(many_scans(2000, 100_000))
    with pytest.raises(MediaError) as refused:
        read_picture(tmp_path / "scans.jpg", FORMATS, limits=Limits(wall_s=0.5))
    assert refused.value.reason == "decode_timeout"


def test_what_is_no_picture(tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(sink, "PNG")
    sound = sink.getvalue()
    gif = written(tmp_path / "x.gif", Image.new("L", (8, 8)), "GIF").read_bytes()
    damaged = (sound[:200], sound[:60] + b"x" * 9 + sound[69:])
    for data in (b"", SVG, gif, b"\xff\xd8\xff" + bytes(99), *damaged):
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(MediaError) as refused:
            read_picture(tmp_path / "file", FORMATS)
        assert refused.value.reason == ("unreadable" if data in damaged else "not_picture")


def test_a_picture_held_sideways_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera's right is up
    image = Image.new("RGB", (40, 16), "red")
    image.paste("blue", (0, 0, 16, 16))
    found = read_picture(written(tmp_path / "photo.png", image, "PNG", exif=exif), FORMATS, pixels=True)
    assert (found.width, found.height) == (16, 40)
    assert found.rgb is not None and found.rgb.shape == (40, 16, 3)
    assert found.rgb[0, 0, 2] > 200 and found.rgb[39, 0, 0] > 200
    jpeg = written(tmp_path / "damaged.jpg", image, "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert read_picture(jpeg, FORMATS).width == 40  # its metadata is damaged, and it is not
