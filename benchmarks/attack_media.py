"""Files that cost more to decode than they weigh, or are not what they say."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
from PIL import Image

HUGE_SIDE = 10_000
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://169.254.169.254/"/></svg>'
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://169.254.169.254/latest\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile 'file:///etc/passwd'\n" + bytes(2048)
DISGUISED_PLAYLIST = b"#EXTftypM3U\n" + PLAYLIST  # begins, byte for byte, as an MP4 may


def picture(width: int, height: int, kind: str = "PNG", **options: Any) -> bytes:
    """Return a flat grey picture's file."""
    sink = io.BytesIO()
    Image.new("L", (width, height), 128).save(sink, kind, **options)
    return sink.getvalue()


def film(pictures: Sequence[bytes], times_s: Sequence[int], *, width: int, height: int) -> bytes:
    """Return an MOV whose packets are PNG files, and whose header says ``width`` x ``height``."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="mov") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = width, height, "gray"
        for data, time_s in zip(pictures, times_s, strict=True):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1)
            packet.pts = packet.dts = time_s
            packet.is_keyframe = True
            container.mux(packet)
    return sink.getvalue()


def many_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG whose last scan, of a few bytes, comes again and again.

    A decoder goes through all of the picture, ``side`` x ``side``, for each.
    """
    data = picture(side, side, "JPEG", progressive=True, quality=50)
    position, last = 2, (0, 0)
    while data[position + 1] != 0xD9:  # the end of the image
        start, scanning = position, data[position + 1] == 0xDA
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if scanning:
            while data[position] != 0xFF or data[position + 1] == 0:
                position += 1
            last = (start, position)
    return data[:position] + data[slice(*last)] * scans + data[position:]
