"""Objects of S3 and of whatever speaks its protocol, read as streams that go on where one broke off.

Address and credentials come from the environment, as for the store (``store_s3.py``).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from botocore import exceptions as boto
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.media.sources.place import Place
from share4video.media.sources.row import SourceFile
from share4video.media.sources.source import Source
from share4video.media.sources.tree import Tree, rows_of
from share4video.store_s3 import ATTEMPTS, connect, said_plainly

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BUFFER_BYTES = 1 << 20
_BROKEN_OFF = (boto.ResponseStreamingError, boto.IncompleteReadError, boto.ReadTimeoutError)


def split_address(address: str) -> tuple[str, str]:
    """Return bucket and key of ``s3://bucket/key``; the key may be empty.

    Raises:
        UserError: there is no bucket.
    """
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket:
        raise UserError("no bucket in the address", where=address, fix="give s3://bucket/prefix")
    return bucket, key


@dataclass(frozen=True)
class S3Object(Place):
    """An object; ``listed`` is its ETag and size where a listing told them."""

    bucket: str
    key: str
    listed: tuple[str, int] | None = None

    @property
    def where(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @cached_property
    def _facts(self) -> tuple[str, int]:
        if self.listed is not None:
            return self.listed
        with _of_one_object(self):
            head = _client().head_object(Bucket=self.bucket, Key=self.key)
        return head["ETag"].strip('"'), head["ContentLength"]

    def exists(self) -> bool:
        """Ask the server. Raises UserError where it refuses to say."""
        try:
            return bool(self._facts)
        except MediaError:
            return False

    def size(self) -> int:
        return self._facts[1]

    def fingerprint(self) -> str:
        etag, size = self._facts
        return f"etag:{etag}:{size}"

    def open(self, start: int = 0, length: int | None = None) -> BinaryIO:
        etag, size = self._facts
        end = size if length is None else min(size, start + length)
        return cast(BinaryIO, io.BufferedReader(_Body(self, etag, start, end), _BUFFER_BYTES))


class _Body(io.RawIOBase):
    """Bytes ``start`` to ``end`` of one version of an object; asks again where the server breaks off."""

    def __init__(self, place: S3Object, etag: str, start: int, end: int) -> None:
        self._place, self._etag, self._position, self._end = place, etag, start, end
        self._stream: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._end - self._position)
        if wanted <= 0:
            return 0
        with _of_one_object(self._place):
            block = self._read(wanted)
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)

    @retry(
        retry=retry_if_exception_type(_BROKEN_OFF),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(0.1, max=5),
        reraise=True,
    )
    def _read(self, wanted: int) -> bytes:
        stream, self._stream = self._stream, None
        if stream is None:
            stream = _client().get_object(
                Bucket=self._place.bucket,
                Key=self._place.key,
                Range=f"bytes={self._position}-{self._end - 1}",
                IfMatch=self._etag,
            )["Body"]
        block: bytes = stream.read(wanted)
        if not block:
            raise boto.IncompleteReadError(actual_bytes=0, expected_bytes=wanted)
        self._stream = stream
        return block

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        super().close()


def list_objects(bucket: str, prefix: str) -> Iterator[S3Object]:
    """Yield the objects whose key begins with ``prefix``, without the "folders" that consoles leave behind.

    Raises:
        UserError: no such bucket, no access, no credentials, or nobody answers at the address.
    """
    with said_plainly(bucket, f"s3://{bucket}/{prefix}".rstrip("/")):
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for entry in page.get("Contents", []):
                if not entry["Key"].endswith("/"):
                    yield S3Object(bucket, entry["Key"], (entry["ETag"].strip('"'), entry["Size"]))


@dataclass(frozen=True)
class S3Tree(Tree):
    """The objects below ``prefix``, which is empty or ends in a slash."""

    bucket: str
    prefix: str

    def file(self, name: str) -> S3Object:
        return S3Object(self.bucket, self.prefix + name)

    def holds(self, name: str) -> bool:
        return self.file(name).exists()


@dataclass(frozen=True)
class S3Source(Source):
    """``s3://bucket/prefix``, or one object."""

    address: str
    name: str
    prefix: str

    def rows(self) -> Iterable[SourceFile]:
        bucket, key = split_address(self.address)
        if key and not key.endswith("/") and (one := S3Object(bucket, key)).exists():
            return rows_of([(self.name, one)])
        tree = self._tree
        found = [
            (self.prefix + place.key.removeprefix(tree.prefix), place)
            for place in list_objects(bucket, tree.prefix)
        ]
        if not found:
            raise UserError(
                "there is no object under the prefix",
                where=self.address,
                fix="give a folder or an object of the bucket; patterns are for files of this machine",
            )
        return rows_of(found)

    def find(self, uri: str) -> Place:
        bucket, key = split_address(self.address)
        if uri == self.name and (one := S3Object(bucket, key)).exists():
            return one
        return self._tree.find(uri.removeprefix(self.prefix))

    @property
    def _tree(self) -> S3Tree:
        bucket, key = split_address(self.address)
        return S3Tree(bucket, f"{key.rstrip('/')}/" if key.rstrip("/") else "")


@contextmanager
def _of_one_object(place: S3Object) -> Iterator[None]:
    """Say of one object what is its own fault (MediaError) and what is not (UserError)."""
    try:
        with said_plainly(place.bucket, place.where, place.key):
            yield
    except KeyError:
        raise MediaError("unreadable", "there is no such object") from None
    except boto.ClientError as error:
        code = error.response.get("Error", {}).get("Code")
        if code in ("PreconditionFailed", "412"):
            raise MediaError("unreadable", "the object changed while it was read") from error
        raise MediaError("unreadable", f"S3 does not give the object: {code}") from error  # archived, for one


def _client() -> S3Client:
    """Return this process's client for the environment as it is now; a fork must not share connections."""
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    return _client_of(os.getpid(), environment)


@lru_cache(maxsize=2)
def _client_of(process: int, environment: tuple[tuple[str, str], ...]) -> S3Client:
    return connect()
