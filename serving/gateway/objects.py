"""Download of one object of S3, or of what speaks its protocol: bounded in size and time, and cancellable.

The address is signed here and fetched like any other, so that a download ends with its request: boto3's runs
in threads that nothing ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import httpx

from serving.gateway.refusal import Refusal
from serving.gateway.remote import receive, tls_context
from share4video.errors import UserError
from share4video.store_s3 import signed_address

_ELSEWHERE = frozenset({301, 307, 400})  # what S3 answers, with the bucket's region, in the wrong one
_MAX_KEY_BYTES = 1024  # S3's own bound
_AUTHORITIES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")  # as boto3 looks for them

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectSource:
    """Downloads objects below some prefixes, with the credentials of the environment.

    Args:
        prefixes: ``s3://bucket/prefix``; what lies below the prefix as a folder may be read.
        timeout_s: for the whole download.
    """

    prefixes: Sequence[str]
    timeout_s: float

    async def download(self, address: str, target: BinaryIO, *, kind: str, max_bytes: int) -> None:
        """Write the object at ``s3://bucket/key`` to ``target``.

        Raises:
            Refusal: it is not below a prefix, is missing, too big or late; or the store fails (502).
        """
        bucket, key = self._checked(address)
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._fetch(bucket, key, target, kind, max_bytes)
        except TimeoutError:
            seconds = f"{self.timeout_s:g} seconds"
            raise Refusal(422, "media_timeout", f"the {kind} could not be fetched in {seconds}") from None
        except (UserError, httpx.HTTPError, httpx.InvalidURL) as error:
            # This gateway's set-up, which is not the caller's to read.
            logger.warning("cannot read %r from the store: %s", address, str(error) or type(error).__name__)
            raise _store_failed(bucket) from error

    def _checked(self, address: str) -> tuple[str, str]:
        bucket, _, key = address.removeprefix("s3://").partition("/")
        steps = key.split("/")
        sound = key.isprintable() and "\\" not in key and len(key.encode()) <= _MAX_KEY_BYTES
        if not bucket or not sound or any(step in ("", ".", "..") for step in steps):
            raise Refusal(400, "media_address", "write an object as s3://bucket/key")
        if not any(address.startswith(prefix.rstrip("/") + "/") for prefix in self.prefixes):
            raise Refusal(
                403,
                "media_store",
                f"clips may not be read from s3://{bucket[:64]}: the prefix is not in the list",
            )
        return bucket, key

    async def _fetch(self, bucket: str, key: str, target: BinaryIO, kind: str, max_bytes: int) -> None:
        # The server is the operator's, so that proxies of the environment are meant for it.
        client = httpx.AsyncClient(verify=_trust(), timeout=self.timeout_s, trust_env=True)
        region = None
        async with client:
            for _ in range(2):
                seconds = max(1, round(self.timeout_s))
                # In a thread, as credentials may have to be asked for.
                url = await asyncio.to_thread(signed_address, bucket, key, seconds, region)
                async with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
                    status = response.status_code
                    if status == 200:
                        await receive(response, target, kind, max_bytes)
                        return
                    if status == 404:
                        raise Refusal(422, "media_unreachable", f"there is no object s3://{bucket}/{key}")
                    region = response.headers.get("x-amz-bucket-region")
                if status not in _ELSEWHERE or region is None:
                    break
        logger.warning("the store answered with status %d for %r", status, f"s3://{bucket}/{key}")
        raise _store_failed(bucket)


def _trust() -> ssl.SSLContext:
    """Return what the store's certificate is checked against. Raises UserError where it cannot be read."""
    try:
        return tls_context(*_AUTHORITIES)
    except OSError as error:  # ssl.SSLError is one: the file holds no certificates
        name = next(name for name in _AUTHORITIES if os.environ.get(name))
        raise UserError(
            f"certificates cannot be read: {error}", where=os.environ[name], fix=f"correct {name}"
        ) from error


def _store_failed(bucket: str) -> Refusal:
    return Refusal(502, "store_failed", f"objects cannot be read from s3://{bucket} now")
