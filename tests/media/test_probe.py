"""What files are said to be, and which are refused and why."""

from __future__ import annotations

import hashlib
import os
import random
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from share4video.media.decode import frames_at
from share4video.media.limits import Limits, MediaError
from share4video.media.probe import ClipInfo, content_hash, probe
from tests.media.clips import FPS, FRAMES, HEIGHT, KINDS, WIDTH, write_clip

CODECS = {"hevc.mp4": "hevc", "vp9.webm": "vp9", "vp8.webm": "vp8", "mpeg4.avi": "mpeg4"}


def refusal(path: Path) -> MediaError:
    with pytest.raises(MediaError) as caught:
        probe(path)
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_facts(clips: dict[str, Path], kind: str) -> None:
    info = probe(clips[kind])
    odd = kind == "odd.mp4"
    assert (info.width, info.height) == ((97, 67) if odd else (WIDTH, HEIGHT))
    assert info.codec == CODECS.get(kind, "h264")
    assert info.frames == FRAMES
    assert info.content_hash == hashlib.sha256(clips[kind].read_bytes()).hexdigest()
    assert info.file_bytes == clips[kind].stat().st_size
    assert not info.has_audio
    assert info.black_share == 0
    if "vfr" in kind:
        assert 9.52 < info.duration_s < 10.2  # the last picture's own length is the muxer's guess
        assert info.fps == pytest.approx(79 / 9.52, abs=0.01)
    else:
        assert info.duration_s == pytest.approx(FRAMES / FPS, abs=0.06)
        assert info.fps == pytest.approx(FPS, abs=0.01)


def test_real_clips(data_root: Path) -> None:
    info = probe(data_root / "videos" / "dj_video3.mp4")
    assert (info.width, info.height, info.codec, info.frames, info.fps) == (362, 640, "h264", 1190, 24)
    assert info.duration_s == pytest.approx(49.583, abs=0.001)
    assert info.has_audio


@pytest.mark.parametrize(
    ("name", "size", "fps", "frames"),
    [
        ("av1_video.mkv", (640, 360), 25, 125),
        ("discard_first_keyframe.mp4", (64, 64), 25, 25),
        ("h264_10bits.mp4", (200, 200), 30, 30),
        ("h265_video.mp4", (128, 128), 10, 10),
        ("nasa_13013_rotated.mp4", (270, 480), 30000 / 1001, 17),
        ("test_non_zero_start.mp4", (200, 112), 30, 12),
        ("testsrc2_odd_height_and_width_444.mp4", (321, 241), 25, 25),
    ],
)
def test_hard_files(data_root: Path, name: str, size: tuple[int, int], fps: float, frames: int) -> None:
    info = probe(data_root / "hard" / name)
    assert (info.width, info.height) == size
    assert info.fps == pytest.approx(fps, abs=1e-6)
    assert info.frames == frames


def test_a_corrupted_file(data_root: Path) -> None:
    error = refusal(data_root / "hard" / "corrupted.mp4")
    assert (error.reason, error.sentence) == ("unreadable", "the video is damaged after 2.70 s")


def test_black_share(tmp_path: Path) -> None:
    black = np.full((HEIGHT, WIDTH, 3), 12, np.uint8)
    assert probe(write_clip(tmp_path / "black.mp4", still=black)).black_share == 1
    dark = np.full((HEIGHT, WIDTH, 3), 45, np.uint8)  # a night scene is not black
    assert probe(write_clip(tmp_path / "dark.mp4", still=dark)).black_share == 0
    lit = black.copy()
    lit[:16, :16] = 200  # a lamp in the dark
    assert probe(write_clip(tmp_path / "lit.mp4", still=lit)).black_share == 0


def test_a_clip_that_fades_in_is_not_black(tmp_path: Path) -> None:
    """One key frame, black, before a bright clip: samples must not be taken from key frames alone."""
    stills = [np.full((HEIGHT, WIDTH, 3), min(200, 8 * i), np.uint8) for i in range(FRAMES)]
    path = tmp_path / "fade.mp4"
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.gop_size = WIDTH, HEIGHT, 1000
        for still in stills:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(still, format="rgb24")))
        container.mux(stream.encode())
    share = probe(path).black_share
    assert share is not None and share < 0.2


def test_frozen_share(tmp_path: Path) -> None:
    lit = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    lit[10:30, 10:30] = (250, 120, 30)
    still = probe(write_clip(tmp_path / "still.mp4", still=lit))
    assert (still.frozen_share, still.single_colour_share) == (1, 0)
    assert still.motion is not None and still.motion < 0.01
    moving = probe(write_clip(tmp_path / "moving.mp4"))
    assert moving.frozen_share == 0
    assert moving.motion is not None and moving.motion > 0.05


@pytest.mark.parametrize(("crf", "grain"), [("23", 0), ("35", 0), ("28", 4)])
def test_an_encoded_still_is_frozen(data_root: Path, tmp_path: Path, crf: str, grain: int) -> None:
    """A frame of a real clip, shown for ten seconds."""
    import av

    film = data_root / "videos" / "making_cake.mp4"
    assert probe(film).frozen_share == 0
    rgb = frames_at(film, [2.0])[0].rgb
    rng = np.random.default_rng(0)
    path = tmp_path / "still.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5, options={"crf": crf, "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *rgb.shape[:2], "yuv420p", 20
        for _ in range(50):
            shown = np.clip(rgb + rng.normal(0, grain, rgb.shape), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    assert probe(path).frozen_share == 1


def test_what_comes_and_goes_between_two_samples_is_seen(tmp_path: Path) -> None:
    """Eight samples of 24 s lie 3 s apart; a lamp that is lit for 1 s is between two of them."""
    import av

    path = tmp_path / "lamp.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(240):
            rgb = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            if 110 <= index < 120:
                rgb[10:20, 10:20] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())
    share = probe(path).frozen_share
    assert share is not None and 0.97 < share < 0.985  # it goes on and off: 2 of 96 quarter seconds


def test_single_colour_share(tmp_path: Path) -> None:
    blue = np.full((HEIGHT, WIDTH, 3), (30, 60, 190), np.uint8)
    found = probe(write_clip(tmp_path / "blue.mp4", still=blue))
    assert (found.single_colour_share, found.black_share) == (1, 0)
    assert probe(write_clip(tmp_path / "bars.mp4")).single_colour_share == 0


def test_a_whole_video_is_one_span(clips: dict[str, Path]) -> None:
    info = probe(clips["late_start.mp4"])
    assert (info.start_s, info.end_s, info.scene) == (0, info.duration_s, None)
    assert info.origin_s == pytest.approx(7.3, abs=0.11)


def test_a_long_video_is_described_by_its_header(clips: dict[str, Path]) -> None:
    info = probe(clips["plain.mp4"], decode_up_to_s=2)
    assert (info.frames, info.black_share, info.frozen_share, info.motion) == (None,) * 4
    assert (info.start_s, info.end_s, info.duration_s) == (0, 4, 4)
    assert probe(clips["plain.mp4"], decode_up_to_s=4).frames == FRAMES


def test_no_videos(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "image.jpg")
    (tmp_path / "notes.mp4").write_text("not a video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(random.Random(0).randbytes(50_000))
    with wave.open(str(tmp_path / "sound.avi"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    for name in ("image.png", "image.jpg", "notes.mp4", "empty.mp4", "noise.mp4", "sound.avi"):
        assert refusal(tmp_path / name).reason == "not_video", name


def test_sound_without_pictures(tmp_path: Path) -> None:
    import av

    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert refusal(path).sentence == "the file holds no video stream"


def test_things_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    for name in ("pipe.mp4", "dangling.mp4", "missing.mp4", "."):
        assert refusal(tmp_path / name).reason == "unreadable"
        with pytest.raises(MediaError):
            content_hash(tmp_path / name)


def test_size_limits(clips: dict[str, Path]) -> None:
    size = clips["plain.mp4"].stat().st_size
    assert probe(clips["plain.mp4"], max_file_bytes=size).file_bytes == size
    with pytest.raises(MediaError) as caught:
        probe(clips["plain.mp4"], max_file_bytes=size - 1)
    assert (caught.value.reason, caught.value.measured, caught.value.bound) == ("too_large", size, size - 1)
    with pytest.raises(MediaError, match="96 x 64") as caught:
        probe(clips["plain.mp4"], limits=Limits(max_pixels=6143))
    assert caught.value.reason == "too_large"


TOLERANT = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("kind", ["plain.mp4", "open_gop.mp4", "late_start.mp4"])
@TOLERANT
@given(share=st.floats(0, 0.9999))
def test_a_cut_mp4_is_always_found_out(
    clips: dict[str, Path], tmp_path: Path, kind: str, share: float
) -> None:
    data = clips[kind].read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(share * len(data))])
    assert refusal(cut).reason in ({"truncated"} if int(share * len(data)) >= 8 else {"not_video"})


@TOLERANT
@given(share=st.floats(0.3, 0.95))
def test_a_cut_mp4_with_its_index_in_front_is_found_out(
    clips: dict[str, Path], tmp_path: Path, share: float
) -> None:
    data = _index_in_front(clips["plain.mp4"], tmp_path)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(share * len(data))])
    error = refusal(cut)
    assert error.reason == "truncated"
    assert error.measured == cut.stat().st_size


@pytest.mark.parametrize("kind", ["no_b.mkv", "vp8.webm", "vp9.webm", "mpeg4.avi"])
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_other_cut_containers_are_found_out(
    clips: dict[str, Path], tmp_path: Path, kind: str, share: float
) -> None:
    data = clips[kind].read_bytes()
    cut = tmp_path / kind
    cut.write_bytes(data[: int(share * len(data))])
    assert refusal(cut).reason in {"truncated", "unreadable"}


def test_missing_frames_at_the_end_of_a_whole_file(clips: dict[str, Path], tmp_path: Path) -> None:
    """The boxes are complete, but the last pictures are zeros: only decoding finds out."""
    data = bytearray(_index_in_front(clips["plain.mp4"], tmp_path))
    start = data.index(b"mdat") + 4
    hole = start + (len(data) - start) * 3 // 4
    data[hole:] = bytes(len(data) - hole)
    (tmp_path / "hole.mp4").write_bytes(data)
    assert refusal(tmp_path / "hole.mp4").reason == "unreadable"


@pytest.mark.parametrize("kind", ["plain.mp4", "vfr.mkv", "vp9.webm", "mpeg4.avi", "h264.ts"])
@settings(TOLERANT, max_examples=6)
@given(seed=st.integers(0, 2**32), flips=st.integers(1, 40))
@example(seed=4049, flips=12)  # in h264.ts a second stream appears midway
def test_flipped_bits_give_facts_or_a_refusal(
    clips: dict[str, Path], tmp_path: Path, kind: str, seed: int, flips: int
) -> None:
    rng = random.Random(seed)
    data = bytearray(clips[kind].read_bytes())
    for _ in range(flips):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path = tmp_path / f"flipped-{kind}"
    path.write_bytes(data)

    def outcome() -> ClipInfo | tuple[str, str]:
        try:
            return probe(path, limits=Limits(wall_s=60))
        except MediaError as error:
            return error.reason, error.sentence

    found = outcome()
    assert found == outcome()
    if not isinstance(found, ClipInfo):
        assert found[0] in {"not_video", "unreadable", "truncated", "too_large", "decode_memory"}


def _index_in_front(clip: Path, folder: Path) -> bytes:
    import av

    target = folder / "front.mp4"
    with av.open(str(clip)) as source, av.open(str(target), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    data = target.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    return data
