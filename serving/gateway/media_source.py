"""From the address in a request to a bounded local file: the only door media enters by.

Addresses are ``data:`` URIs, ``http(s)://`` to allow-listed hosts, ``file://`` inside one folder and ``s3://``
below allow-listed prefixes. Whatever the address, the bytes must begin like a video container or an image:
a playlist, which would make the decoder open other addresses, is not one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import stat
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import unquote, urlsplit

from serving.gateway.disk import DiskBudget
from serving.gateway.objects import ObjectSource
from serving.gateway.refusal import Refusal
from serving.gateway.remote import Remote
from serving.gateway.settings import GatewaySettings

Kind = Literal["video", "image"]

MAX_ADDRESS_LENGTH = 8192  # of anything but a data: URI
_SNIFF_BYTES = 1024
_DATA_HEADER = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)(;[a-z0-9-]+=[^;,]*)*;base64,", re.IGNORECASE)
_MAX_DATA_HEADER = 256
_FILE_FORM = "write a local file as file:///folder/file"

_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_VIDEO_STARTS = (
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"OggS",
    b"0&\xb2u\x8ef\xcf\x11",  # ASF: wmv
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG video
)
_ISO_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})  # mp4, mov
_TS_PACKET = 188


@dataclass(frozen=True)
class MediaSource:
    """Opens media under one gateway's limits."""

    remote: Remote
    file_root: Path | None
    s3_prefixes: Sequence[str]
    max_bytes: dict[Kind, int]
    disk: DiskBudget = field(default_factory=DiskBudget)

    @classmethod
    def from_settings(cls, settings: GatewaySettings) -> MediaSource:
        """Return a source for what the settings allow: hosts, networks, a folder, S3 prefixes, sizes."""
        return cls(
            remote=Remote(settings.allowed_hosts, settings.allowed_networks, settings.fetch_timeout_s),
            file_root=settings.file_root,
            s3_prefixes=settings.s3_prefixes,
            max_bytes={"video": settings.max_video_bytes, "image": settings.max_image_bytes},
            disk=DiskBudget(settings.max_downloaded_bytes),
        )

    @asynccontextmanager
    async def open(self, address: str, kind: Kind) -> AsyncIterator[Path]:
        """Give the media at ``address`` as a local file; what was downloaded is deleted on leaving.

        Raises:
            Refusal: the address is not allowed, or what it holds is missing, too big or not of this kind; or
                the disk budget is spent (429).
        """
        scheme = address[:16].partition(":")[0].lower()
        if scheme != "data" and len(address) > MAX_ADDRESS_LENGTH:
            raise Refusal(
                400, "media_address", f"the {kind} address is longer than {MAX_ADDRESS_LENGTH} characters"
            )
        if scheme == "file":
            path = self._local_file(address, kind)
            await asyncio.to_thread(_check_start, path, kind)
            yield path
            return
        with self.disk.share() as share, tempfile.TemporaryDirectory(prefix="share4video-media-") as folder:
            path = Path(folder) / kind
            with share.open(path) as target:
                if scheme == "data":
                    await asyncio.to_thread(self._decode, address, target, kind)
                elif scheme in ("http", "https"):
                    await self.remote.download(address, target, kind=kind, max_bytes=self.max_bytes[kind])
                elif scheme == "s3":
                    objects = ObjectSource(self.s3_prefixes, self.remote.timeout_s)
                    await objects.download(address, target, kind=kind, max_bytes=self.max_bytes[kind])
                else:
                    raise Refusal(
                        400,
                        "media_scheme",
                        f"the {kind} address must be a data:, https:, s3: or file: address",
                    )
            await asyncio.to_thread(_check_start, path, kind)
            yield path

    def _decode(self, address: str, target: BinaryIO, kind: Kind) -> None:
        header = _DATA_HEADER.match(address[:_MAX_DATA_HEADER])
        if header is None:
            raise Refusal(400, "media_address", f"write the {kind} as data:{kind}/...;base64,...")
        content_type = header.group(1).lower()
        if not content_type.startswith(f"{kind}/") and content_type != "application/octet-stream":
            raise Refusal(415, "media_type", f"the data: address holds {content_type}, which is no {kind}")
        encoded = address[header.end() :]
        if len(encoded) // 4 * 3 > self.max_bytes[kind] + 3:
            raise _too_big(kind, self.max_bytes[kind])
        try:
            target.write(base64.b64decode(encoded, validate=True))
        except (binascii.Error, ValueError):
            raise Refusal(
                400, "media_address", f"the data: address of the {kind} is not valid base64"
            ) from None

    def _local_file(self, address: str, kind: Kind) -> Path:
        if self.file_root is None:
            raise Refusal(403, "media_file", "this gateway reads no local files")
        try:
            parts = urlsplit(address)
        except ValueError:
            raise Refusal(400, "media_address", _FILE_FORM) from None
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise Refusal(400, "media_address", _FILE_FORM)
        outside = Refusal(403, "media_file", "the file is missing or outside the folder this gateway reads")
        try:
            path = Path(unquote(parts.path)).resolve(strict=True)  # follows symlinks: judge where they lead
            status = path.stat()
        except (OSError, ValueError, RuntimeError):
            raise outside from None
        if not path.is_relative_to(self.file_root.resolve()) or not stat.S_ISREG(status.st_mode):
            raise outside
        if status.st_size > self.max_bytes[kind]:
            raise _too_big(kind, self.max_bytes[kind])
        return path


def _too_big(kind: Kind, bound: int) -> Refusal:
    return Refusal(413, "media_too_big", f"the {kind} is larger than {bound} bytes")


def _check_start(path: Path, kind: Kind) -> None:
    with path.open("rb") as file:
        start = file.read(_SNIFF_BYTES)
    known = _is_video(start) if kind == "video" else _is_image(start)
    if not known:
        raise Refusal(415, "media_type", f"what the address holds is no {kind} of a kind this gateway takes")


def _is_image(start: bytes) -> bool:
    return start.startswith(_IMAGE_STARTS) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def _is_video(start: bytes) -> bool:
    return (
        start[4:8] in _ISO_BOXES
        or start.startswith(_VIDEO_STARTS)
        or (start[:4] == b"RIFF" and start[8:12] == b"AVI ")
        or (start[:1] == b"G" and start[_TS_PACKET : _TS_PACKET + 1] == b"G" and len(start) > _TS_PACKET)
    )
