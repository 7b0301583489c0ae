"""Films for measurements: a texture that moves under the camera, as long and as large as is asked."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

GOP = 250
_PAN, _SWAY = 512, 32  # pixels the camera travels to the right, and up and down
_NOISE = 18  # of 255


def write_film(path: Path, width: int, height: int, seconds: float, *, fps: int = 30, seed: int = 0) -> Path:
    """Write H.264 at a visually good quality, with a key frame every 250 frames at most."""
    rng = np.random.default_rng(seed)
    size = (width + _PAN, height + 2 * _SWAY)
    ground = np.zeros((size[1], size[0], 3), np.float32)
    for cell, strength in ((160, 0.5), (40, 0.3), (5, 0.2)):  # large shapes, small ones, fine grain
        grains = rng.integers(0, 256, (size[1] // cell + 2, size[0] // cell + 2, 3), dtype=np.uint8)
        ground += strength * np.asarray(Image.fromarray(grains).resize(size, Image.Resampling.BICUBIC))
    texture = (ground * (1 - _NOISE / 255)).astype(np.uint8)
    noise = rng.integers(0, _NOISE, (height + 64, width + 64, 3), dtype=np.uint8)  # a sensor's, on top
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": "21"}
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", GOP
        stream.thread_type = "FRAME"  # x264 would cut pictures into slices for threads of the other kind
        for number in range(round(seconds * fps)):
            x = round(_PAN / 2 * (1 - np.cos(number / fps / 3)))
            y = round(_SWAY * (1 + np.sin(number / fps)))
            down, across = rng.integers(0, 64, 2)
            shown = texture[y : y + height, x : x + width] + noise[down:, across:][:height, :width]
            for packet in stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def join(films: list[Path], path: Path) -> Path:
    """Write films of one kind one after the other, without encoding them again."""
    with av.open(str(path), "w") as joined:
        stream, offset = None, 0
        for film in films:
            with av.open(str(film)) as part:
                source = part.streams.video[0]
                stream = stream or joined.add_stream_from_template(source)
                for packet in part.demux(source):
                    if packet.pts is None or packet.dts is None:
                        continue  # the empty one at the end
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = stream
                    joined.mux(packet)
                assert source.duration is not None
                offset += source.duration
    return path
