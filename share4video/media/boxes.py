"""Whether an MP4 or MOV file was cut short, from its top-level boxes (ISO/IEC 14496-12, section 4.2)."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from share4video.media.limits import MediaError

_FIRST_TYPES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp"})
_MAX_BOXES = 100_000  # a fragmented file has two per fragment


def refuse_truncated(file: BinaryIO) -> None:
    """Raise MediaError(``truncated``) where boxes run past the end or the index box is missing.

    Says nothing about files of other formats, nor about boxes that make no sense: the decoder judges those.
    """
    size = file.seek(0, os.SEEK_END)
    offset, indexed = 0, False
    for _ in range(_MAX_BOXES):
        file.seek(offset)
        head = file.read(16)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head[:8])
        if offset == 0 and kind not in _FIRST_TYPES:
            return
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
        elif length == 0:  # the last box reaches to the end of the file
            length = size - offset
        if length < 8:
            return
        if offset + length > size:
            raise MediaError(
                "truncated",
                f"the file ends after {size} of at least {offset + length} bytes",
                measured=float(size),
                bound=float(offset + length),
            )
        indexed = indexed or kind == b"moov"
        offset += length
    if offset > 0 and not indexed:
        raise MediaError("truncated", "the file ends before its index (moov box)")
