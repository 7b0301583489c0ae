"""The store on S3 and on whatever speaks its protocol (MinIO, SeaweedFS, Ceph, moto).

Address, region and credentials come from the environment as boto3 reads it: ``AWS_ENDPOINT_URL_S3`` or
``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID`` and the rest of its chain. The server must know
conditional writes (``If-None-Match: *``). A killed upload leaves an incomplete multipart upload behind, which
no reader sees; a lifecycle rule on the bucket clears them.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import RetriesExceededError, S3UploadFailedError
from botocore import exceptions as boto
from botocore.config import Config as BotoConfig
from tenacity import (
    retry,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from share4video.errors import UserError
from share4video.store import Store, check_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ATTEMPTS = 4
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 60.0
DENIED = frozenset(
    {
        "401",
        "403",
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
)
NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
)
MISSING_KEY = frozenset({"404", "NoSuchKey", "NotFound"})


def _code(error: BaseException) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, boto.ClientError) else ""


# A body that breaks off is not covered by botocore's own retries.
_retry_stream = retry(
    retry=retry_if_exception_type((boto.ResponseStreamingError, boto.IncompleteReadError)),
    stop=stop_after_attempt(ATTEMPTS),
    wait=wait_random_exponential(0.1, max=5),
    reraise=True,
)
# S3 answers 409 where two conditional writes of one key overlap.
_retry_conflict = retry(
    retry=retry_if_exception(lambda error: _code(error) in ("ConditionalRequestConflict", "409")),
    stop=stop_after_attempt(10),
    wait=wait_random_exponential(0.05, max=2),
    reraise=True,
)


class S3Store(Store):
    """``s3://bucket/prefix``.

    Raises:
        UserError: no such bucket, no access, no credentials, or nobody answers at the address.
    """

    def __init__(self, root: str) -> None:
        self.bucket, _, prefix = root.removeprefix("s3://").partition("/")
        if not self.bucket:
            raise UserError("no bucket in the store's address", where=root, fix="give s3://bucket/prefix")
        self.prefix = prefix.strip("/")
        self.root = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        with self._said_plainly():
            self._client = connect()
            self._client.head_bucket(Bucket=self.bucket)

    def url(self, key: str) -> str:
        return f"s3://{self.bucket}/{self._name(key)}"

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)

    def exists(self, key: str) -> bool:
        try:
            with self._said_plainly(key):
                self._client.head_object(Bucket=self.bucket, Key=self._name(key))
        except KeyError:
            return False
        return True

    def size(self, key: str) -> int:
        with self._said_plainly(key):
            return self._client.head_object(Bucket=self.bucket, Key=self._name(key))["ContentLength"]

    def get(self, key: str) -> bytes:
        with self._said_plainly(key):
            return self._read(self._name(key))

    @_retry_stream
    def _read(self, name: str) -> bytes:
        return self._client.get_object(Bucket=self.bucket, Key=name)["Body"].read()

    def put(self, key: str, data: bytes) -> None:
        with self._said_plainly(key):
            self._client.put_object(Bucket=self.bucket, Key=self._name(key), Body=data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._said_plainly(key):
            return self._create(self._name(key), data, writer=uuid.uuid4().hex)

    @_retry_conflict
    def _create(self, name: str, data: bytes, writer: str) -> bool:
        try:
            self._client.put_object(
                Bucket=self.bucket, Key=name, Body=data, IfNoneMatch="*", Metadata={"writer": writer}
            )
        except boto.ClientError as error:
            if _code(error) not in ("PreconditionFailed", "412"):
                raise
            # A request whose answer was lost is sent again by botocore and then fails on its own object.
            found = self._client.head_object(Bucket=self.bucket, Key=name)
            return found["Metadata"].get("writer") == writer
        return True

    def list(self, prefix: str) -> Iterator[str]:
        folder = self._name(prefix.rstrip("/")) if prefix else self.prefix
        base = f"{self.prefix}/" if self.prefix else ""
        with self._said_plainly(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=f"{folder}/" if folder else ""
            )
            for page in pages:
                for entry in page.get("Contents", []):
                    if not entry["Key"].endswith("/"):  # consoles leave "folders" behind
                        yield entry["Key"].removeprefix(base)

    def delete(self, key: str) -> None:
        with self._said_plainly(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def download(self, key: str, target: Path) -> None:
        with self._said_plainly(key):
            self._client.download_file(self.bucket, self._name(key), str(target))

    def upload(self, source: Path, key: str) -> None:
        with self._said_plainly(key):
            self._client.upload_file(str(source), self.bucket, self._name(key))

    def _said_plainly(self, key: str = "") -> AbstractContextManager[None]:
        return said_plainly(self.bucket, f"{self.root}/{key}".rstrip("/"), key)


@contextmanager
def said_plainly(bucket: str, where: str, key: str = "") -> Iterator[None]:
    """Turn boto3's errors inside the block into what callers can tell apart.

    Args:
        where: what is asked for, as a person reads it.
        key: the object, where one is asked for.

    Raises:
        KeyError: there is no object ``key``.
        UserError: what the user can mend: credentials, access, the network, a missing bucket.
    """
    try:
        yield
    except NO_CREDENTIALS as error:
        raise UserError(
            "no usable S3 credentials", where=where, fix="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except (boto.ConnectionError, boto.HTTPClientError) as error:
        raise UserError(
            "cannot reach the S3 server", where=where, fix="check AWS_ENDPOINT_URL and the network"
        ) from error
    except (RetriesExceededError, boto.IncompleteReadError) as error:
        raise UserError(
            "the S3 server breaks off", where=where, fix="check the network, and run this again"
        ) from error
    except S3UploadFailedError as error:
        if isinstance(error.__context__, boto.ClientError):
            raise _plain(error.__context__, bucket, where, key) from error
        raise
    except boto.ClientError as error:
        raise _plain(error, bucket, where, key) from error
    except boto.BotoCoreError as error:
        raise UserError("S3 is not set up right", where=where, fix=" ".join(str(error).split())) from error


def _plain(error: boto.ClientError, bucket: str, where: str, key: str) -> Exception:
    code = _code(error)
    if code == "NoSuchBucket" or (code in MISSING_KEY and not key):
        return UserError(f"there is no bucket {bucket}", where=where, fix="make it or name another")
    if code in MISSING_KEY:
        return KeyError(key)
    if code in DENIED:
        return UserError(
            f"S3 refuses access: {code}", where=where, fix="check the credentials and the policy"
        )
    if code in ("NotImplemented", "501"):
        return UserError(
            "the S3 server does not know conditional writes", where=where, fix="use one that does"
        )
    return error


def signed_address(bucket: str, key: str, expires_s: int, region: str | None = None) -> str:
    """Return the web address at which anybody may read one object for ``expires_s`` seconds.

    The server is not asked, though whoever hands out credentials may be.

    Args:
        region: the bucket's, where it is not the one the environment names.

    Raises:
        UserError: there are no credentials, or S3 is not set up right.
    """
    with said_plainly(bucket, f"s3://{bucket}/{key}"):
        client = _signing_client(_aws_environment(), region)
        return client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=expires_s
        )


def _aws_environment() -> tuple[tuple[str, str], ...]:
    return tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))


@lru_cache(maxsize=4)
def _signing_client(environment: tuple[tuple[str, str], ...], region: str | None) -> S3Client:
    # Without a word boto3 signs addresses the old way, which new buckets refuse.
    return connect(BotoConfig(signature_version="s3v4", region_name=region))


def connect(changes: BotoConfig | None = None) -> S3Client:
    """Make a client; off AWS, with path-style addresses and without checksums that older servers refuse."""
    session = boto3.session.Session()
    config = BotoConfig(
        retries={"mode": "standard", "max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
    ).merge(changes or BotoConfig())
    client: S3Client = session.client("s3", config=config)
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return client
    other = BotoConfig(
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"},
    )
    return session.client("s3", config=config.merge(other))
