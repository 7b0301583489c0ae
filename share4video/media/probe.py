"""What a file is: container facts, integrity, content hash. Decodes in a guarded child process."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from share4video.media.guard import pool
from share4video.media.limits import Limits, MediaError

__all__ = [
    "ClipInfo",
    "Limits",
    "MediaError",
    "Splitting",
    "content_hash",
    "file_size",
    "probe",
    "split",
]

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class ClipInfo:
    """A video that can be decoded from its first to its last frame, or one scene of it.

    Attributes:
        start_s: when it comes on show, in seconds after the video's first frame; 0 for a whole video.
        end_s: when its last frame goes.
        duration_s: from one to the other.
        fps: mean frame rate; 0 for a single picture.
        width: pixels, as shown (after rotation).
        height: pixels, as shown.
        codec: FFmpeg's name of the codec, as ``h264``.
        content_hash: SHA-256 of the file's bytes.
        file_bytes: its size.
        container: FFmpeg's name of the container format.
        pixel_format: FFmpeg's name, as ``yuv420p``.
        origin_s: presentation time of the video's first frame by the container's own clock.
        has_audio: whether there is a sound track.
        frames: how many are shown; None where only the header was read, as are the scores below.
        black_share: share of sampled pictures that are black.
        single_colour_share: share of sampled pictures of one flat colour.
        frozen_share: share of neighbouring sampled pictures that do not differ; None for a single picture.
        motion: mean difference of neighbouring sampled pictures, 0 to 1; None for a single picture.
        scene: which scene of the video it is, from 0; None for a whole video.
        aesthetic: how well it is liked, where a model was asked.
    """

    start_s: float
    end_s: float
    duration_s: float
    fps: float
    width: int
    height: int
    codec: str
    content_hash: str
    file_bytes: int
    container: str
    pixel_format: str
    origin_s: float
    has_audio: bool
    frames: int | None
    black_share: float | None
    single_colour_share: float | None
    frozen_share: float | None
    motion: float | None
    scene: int | None = None
    aesthetic: float | None = None


@dataclass(frozen=True)
class Splitting:
    """How a video is split into scenes.

    Attributes:
        threshold: how many times the change around it a cut's change must be.
        min_scene_s: a cut sooner than this after its scene began is passed over.
        wall_s: seconds that may be spent; every frame is decoded.
    """

    threshold: float
    min_scene_s: float
    wall_s: float


def probe(
    path: str | Path,
    *,
    limits: Limits | None = None,
    max_file_bytes: int | None = None,
    decode_up_to_s: float | None = None,
    known_hash: str | None = None,
) -> ClipInfo:
    """Describe a video file, after decoding parts of it that include the first and the last frame.

    Args:
        decode_up_to_s: a video whose header says it is longer is described by its header alone, so that
            hours of film cost nothing where only clips are wanted.
        known_hash: the file's content hash, where the caller has it.

    Raises:
        MediaError: the file cannot be read, is no video, was cut short, or goes over a limit.
    """
    size = file_size(path, max_bytes=max_file_bytes)
    if size == 0:
        raise MediaError("not_video", "the file is empty", measured=0.0)
    facts = _inspect(path, limits or Limits(), decode_up_to_s=decode_up_to_s, cuts=[])
    (span,) = facts.pop("spans")
    return ClipInfo(**facts, **span, content_hash=known_hash or content_hash(path), file_bytes=size)


def split(clip: ClipInfo, path: str | Path, how: Splitting, limits: Limits | None = None) -> list[ClipInfo]:
    """Describe each scene of a video that `probe` described; a video of one scene stays whole.

    So does one of which only the header was read.

    Raises:
        MediaError: not every frame can be decoded, or not within the limits.
    """
    if clip.frames is None:
        return [clip]
    bounds = limits or Limits()
    wanted = {"threshold": how.threshold, "min_scene_s": how.min_scene_s}
    patient = replace(bounds, wall_s=how.wall_s)
    cuts = pool().call("scenes", os.path.abspath(path), wanted, patient).facts["cuts"]
    if not cuts:
        return [clip]
    spans = _inspect(path, patient, decode_up_to_s=None, cuts=cuts)["spans"]
    return [replace(clip, **span, scene=number) for number, span in enumerate(spans)]


def _inspect(
    path: str | Path, limits: Limits, *, decode_up_to_s: float | None, cuts: list[int]
) -> dict[str, Any]:
    arguments = {"decode_up_to_s": decode_up_to_s, "cuts": cuts}
    return pool().call("inspect", os.path.abspath(path), arguments, limits).facts


def content_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, read in blocks. Raises MediaError where it cannot be read."""
    file_size(path)  # a pipe or a device would be read for ever
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise MediaError("unreadable", f"the file cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def file_size(path: str | Path, *, max_bytes: int | None = None) -> int:
    """Return the size of a regular file. Raises MediaError where it is none, or over ``max_bytes``."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise MediaError("unreadable", f"the file cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise MediaError("unreadable", "this is not a regular file")
    if max_bytes is not None and status.st_size > max_bytes:
        raise MediaError(
            "too_large",
            f"the file of {status.st_size} bytes is over the {max_bytes} allowed",
            measured=float(status.st_size),
            bound=float(max_bytes),
        )
    return status.st_size
