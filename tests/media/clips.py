"""Real video files whose pictures tell their number, and what reading them from start to end shows."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Rgb = npt.NDArray[np.uint8]

WIDTH, HEIGHT, FRAMES, FPS = 96, 64, 80, 20
_BITS = 8
_VFR_STEPS = (20, 140, 40, 40, 600, 20, 20, 80)  # milliseconds from frame to frame, over and over
_VFR_TIMES = [sum(_VFR_STEPS[j % len(_VFR_STEPS)] for j in range(i)) for i in range(FRAMES)]

KINDS: dict[str, dict[str, Any]] = {
    "plain.mp4": {},
    "short_gop.mp4": {"gop": 16},
    "open_gop.mp4": {"options": {"x264-params": "open-gop=1:bframes=3:keyint=16:min-keyint=16:scenecut=0"}},
    "vfr.mp4": {"times_ms": _VFR_TIMES},
    "vfr.mkv": {
        "times_ms": _VFR_TIMES,
        "gop": 20,
    },
    "late_start.mp4": {"times_ms": [7300 + 50 * i for i in range(FRAMES)], "gop": 20},
    "no_b.mkv": {"options": {"bf": "0"}, "gop": 20},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=16:open-gop=1"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "lag-in-frames": "12"}},
    "vp8.webm": {"codec": "libvpx", "options": {"cpu-used": "8", "lag-in-frames": "12"}, "gop": 20},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "h264.ts": {"gop": 16},
    "odd.mp4": {"width": 97, "height": 67, "pixels": "yuv444p"},
    "ten_bit.mp4": {"pixels": "yuv420p10le"},
}


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> Rgb:
    """Return a picture with ``number`` in it as eight vertical bars, bright for a one."""
    bars = np.array([40 + 170 * (number >> bit & 1) for bit in range(_BITS)], np.uint8)
    row = bars[np.arange(width) * _BITS // width]
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))


def number_in(rgb: Rgb) -> int:
    """Read the number out of a picture."""
    height, width, _ = rgb.shape
    middles = [(2 * bit + 1) * width // (2 * _BITS) for bit in range(_BITS)]
    return sum(int(rgb[height // 4, x].mean() > 125) << bit for bit, x in enumerate(middles))


def write_clip(
    path: Path,
    *,
    frames: int = FRAMES,
    width: int = WIDTH,
    height: int = HEIGHT,
    fps: int | Fraction = FPS,
    times_ms: Sequence[int] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    gop: int | None = None,
    rotation: float = 0.0,
    mirrored: bool = False,
    still: Rgb | None = None,
) -> Path:
    """Write a clip of numbered pictures, or of one picture over and over."""
    time_base = Fraction(1, 1000) if times_ms else 1 / Fraction(fps)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000 if times_ms else fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = time_base
        if gop is not None:
            stream.gop_size = gop
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        for index in range(frames):
            shown = picture(index, width, height) if still is None else still
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            frame.pts = times_ms[index] if times_ms else index
            frame.time_base = time_base
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def fragmented(clip: Path, target: Path) -> Path:
    """Write a clip again in fragments, so that no index at its front knows all key frames."""
    options = {"movflags": "frag_keyframe+empty_moov"}
    with av.open(str(clip)) as source, av.open(str(target), "w", options=options) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return target


def cut_by_edit_list(clip: Path, target: Path, frames: int) -> Path:
    """Copy an MP4 without its first frames: they stay, to decode the others by, and are not shown."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None and packet.pts is not None:
                skipped = frames * packet.duration
                packet.pts, packet.dts = packet.pts - skipped, packet.dts - skipped
                packet.stream = stream
                out.mux(packet)
    return target


def read_through(path: Path) -> list[tuple[float, Rgb]]:
    """Decode a whole file in order: (seconds after the first frame, picture as stored)."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shown = [(frame.pts, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
        assert stream.time_base is not None
        origin = shown[0][0]
        return [(float((pts - origin) * stream.time_base), rgb) for pts, rgb in shown]


def on_show(frames: Sequence[tuple[float, Rgb]], time_s: float) -> tuple[float, Rgb]:
    """Return the last of ``frames`` that began at or before ``time_s``."""
    return [frame for frame in frames if frame[0] <= time_s][-1]
