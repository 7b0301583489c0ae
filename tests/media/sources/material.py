"""Files, archives and buckets with known bytes."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import boto3

from share4video.media.limits import MediaError
from share4video.media.sources import SourceFile

MAX_BYTES = 1 << 20


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_archive(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def upload(root: str, files: Mapping[str, bytes]) -> str:
    """Put objects below ``s3://bucket/prefix`` and return it."""
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    for name, data in files.items():
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=data)
    return root


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def contents(rows: list[SourceFile]) -> dict[str, str]:
    """Read every row: its hash by uri, or the reason why it has none."""
    found = {}
    for row in rows:
        try:
            found[row.uri] = row.content_hash(max_bytes=MAX_BYTES)
        except MediaError as error:
            found[row.uri] = f"{error.reason}: {error.sentence}"
    return found
