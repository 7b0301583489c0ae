"""WebDataset shards: tar archives in which the files of one sample stand together and share a key.

A sample of ours is ``<clip id>.json`` (the clip's row and all its captions), ``<clip id>.txt`` (the summary)
and, before them, the video as ``<clip id>.mp4`` or the key frames as ``<clip id>.000.jpg`` and so on. What
comes after the first dot of a name is the member's kind. Equal samples give equal bytes: members carry no
time, owner or name of this machine.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from share4video.dataset.formats.lines import Reject
from share4video.dataset.published import ClipSample
from share4video.errors import UserError

MAX_MEMBER_BYTES = 1 << 30
MAX_SAMPLE_BYTES = 2 << 30
_BLOCK = tarfile.BLOCKSIZE
_MODE = 0o644
_KEY = re.compile(r"[\w-]{1,80}", re.ASCII)
_KIND = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)


@dataclass(frozen=True)
class Sample:
    """A sample as it is stored: its members' bytes by kind, such as ``mp4``, ``000.jpg``, ``json``."""

    key: str
    members: Mapping[str, bytes]


def text_members(sample: ClipSample) -> dict[str, bytes]:
    """Return the members that hold a clip's captions; `clip_sample` is the way back."""
    fields = {"clip": sample.clip, "captions": sample.captions, "differentials": sample.differentials}
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    return {"json": text.encode(), "txt": sample.summary.encode()}


def clip_sample(sample: Sample) -> ClipSample:
    """Return the clip that a sample we wrote holds.

    Raises:
        ValueError: its ``json`` is missing or holds something else.
    """
    try:
        fields = json.loads(sample.members["json"])
        return ClipSample(dict(fields["clip"]), tuple(fields["captions"]), tuple(fields["differentials"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"sample {sample.key} holds no clip of ours: {error}") from None


def stored_bytes(sizes: Sequence[int]) -> int:
    """Return how many bytes of a shard members of these sizes take."""
    return sum(_BLOCK + -(-size // _BLOCK) * _BLOCK for size in sizes)


class ShardWriter:
    """Writes one shard; ``members`` of a sample are stored in the order they are given."""

    def __init__(self, sink: BinaryIO) -> None:
        self._tar = tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self.samples = self.bytes = 0

    def add(self, key: str, members: Mapping[str, bytes | Path]) -> None:
        """Add a sample; a file is streamed.

        Raises:
            ValueError: the key has a dot or another character that keys may not have.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key of a sample")
        for kind, data in members.items():
            info = tarfile.TarInfo(f"{key}.{kind}")
            info.mode = _MODE
            with data.open("rb") if isinstance(data, Path) else io.BytesIO(data) as file:
                info.size = file.seek(0, io.SEEK_END)
                file.seek(0)
                self._tar.addfile(info, file)
            self.bytes += stored_bytes([info.size])
        self.samples += 1

    def close(self) -> None:
        self._tar.close()


def read(path: Path, *, max_member_bytes: int = MAX_MEMBER_BYTES) -> Iterator[Sample | Reject]:
    """Yield the samples of a shard in order, one in memory at a time. Nothing is written anywhere.

    A member that is no plain file, is named like no sample's or is over its bound is a reject
    (``not_allowed``, ``too_large``) and is not part of its sample; so is a member that brings its sample over
    ``MAX_SAMPLE_BYTES``. Numbers count members from 1.

    Raises:
        UserError: the file cannot be read, or is no whole archive; what came before was yielded.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(
            f"cannot read the shard: {error.strerror}", where=str(path), fix="check the path"
        ) from error
    number, key = 0, ""
    members: dict[str, bytes] = {}
    with file:
        try:
            for number, (name, data) in enumerate(_members(file, max_member_bytes), start=1):
                if isinstance(data, Reject):
                    yield Reject(number, data.reason, data.sentence)
                    continue
                own, kind = _split(name)
                if own != key and members:
                    yield Sample(key, members)
                if own != key:
                    key, members = own, {}
                if sum(map(len, members.values())) + len(data) > MAX_SAMPLE_BYTES:
                    yield Reject(number, "too_large", f"sample {key} is over {MAX_SAMPLE_BYTES} bytes")
                elif kind in members:
                    yield Reject(number, "not_allowed", f"sample {key} has {kind} twice")
                else:
                    members[kind] = data
        except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
            raise UserError(
                f"the shard is damaged after member {number}: {error}", where=str(path), fix="fetch it again"
            ) from error
    if members:
        yield Sample(key, members)


def _members(file: BinaryIO, max_bytes: int) -> Iterator[tuple[str, bytes | Reject]]:
    reached = -1
    with tarfile.open(fileobj=cast(Any, _Bounded(file, max_bytes)), mode="r:") as tar:
        while (info := tar.next()) is not None:
            cast(Any, tar).members = []  # else every header of the archive is kept
            if info.offset <= reached or info.size < 0:
                raise tarfile.ReadError("members overlap")
            reached = info.offset
            own, kind = _split(info.name)
            if not info.isreg() or info.issparse():
                yield info.name, Reject(0, "not_allowed", f"{info.name!r} is no plain file")
            elif not _KEY.fullmatch(own.rpartition("/")[2]) or not _KIND.fullmatch(kind) or not _inside(own):
                yield info.name, Reject(0, "not_allowed", f"{info.name!r} is no name of a sample's file")
            elif info.size > max_bytes:
                yield info.name, Reject(0, "too_large", f"{info.name!r} is over {max_bytes} bytes")
            else:
                member = tar.extractfile(info)
                assert member is not None
                data = member.read()
                if len(data) != info.size:
                    raise tarfile.ReadError("it breaks off")
                yield info.name, data


def _split(name: str) -> tuple[str, str]:
    """Return a member's key and kind: the folder belongs to the key, the kind begins at the first dot."""
    folder, slash, base = name.rpartition("/")
    own, _, kind = base.partition(".")
    return folder + slash + own, kind


def _inside(name: str) -> bool:
    return not name.startswith("/") and not {"", "..", "."} & set(name.split("/"))


class _Bounded:
    """A file no single read of which takes more than a member may have: headers can claim any length."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._most = file, max(most, tarfile.RECORDSIZE)
        self.tell, self.seek = file.tell, file.seek

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= self._most:
            raise tarfile.ReadError("a header claims too much")
        return self._file.read(count)
