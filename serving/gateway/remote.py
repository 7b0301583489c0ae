"""Download of one media file over http(s): bounded in size and time, every hop checked and pinned."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

import certifi
import httpx

from serving.gateway.addresses import Resolver, pinned_address, system_resolver
from serving.gateway.refusal import Refusal
from share4video.media.addresses import Network

MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OPAQUE_TYPES = frozenset({"application/octet-stream", "binary/octet-stream", "application/mp4", ""})


@dataclass(frozen=True)
class Remote:
    """Downloads from an allow-list of hosts.

    Args:
        allowed_hosts, networks: see ``addresses``.
        timeout_s: for the whole download, redirects included.
        resolve: name resolution; a test gives its own.
    """

    allowed_hosts: Sequence[str]
    networks: Sequence[Network]
    timeout_s: float
    resolve: Resolver = system_resolver

    async def download(self, url: str, target: BinaryIO, *, kind: str, max_bytes: int) -> None:
        """Write what ``url`` holds to ``target``.

        Args:
            kind: ``video`` or ``image``; the answer's content type must be one of its, or opaque bytes.

        Raises:
            Refusal: an address is not allowed; or the answer is an error, late, too big or of another type.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._follow(url, target, kind, max_bytes)
        except TimeoutError:
            raise Refusal(
                422, "media_timeout", f"the {kind} could not be fetched in {self.timeout_s:g} seconds"
            ) from None
        except (httpx.InvalidURL, UnicodeError):
            raise Refusal(
                400, "media_address", f"the {kind} address is, or leads to, no web address"
            ) from None
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise Refusal(
                422, "media_unreachable", f"the {kind} could not be fetched: {type(error).__name__}"
            ) from error

    async def _follow(self, text: str, target: BinaryIO, kind: str, max_bytes: int) -> None:
        url = httpx.URL(text)
        # trust_env off: a proxy from the environment would resolve the name again, past the pinned address.
        async with httpx.AsyncClient(
            verify=tls_context("SSL_CERT_FILE"), trust_env=False, timeout=self.timeout_s
        ) as client:
            for _ in range(MAX_REDIRECTS + 1):
                address = await pinned_address(
                    url, allowed_hosts=self.allowed_hosts, networks=self.networks, resolve=self.resolve
                )
                request = client.build_request(
                    "GET",
                    url.copy_with(host=address),
                    headers={"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"},
                    extensions={
                        "sni_hostname": url.raw_host.decode("ascii")
                    },  # certificates are still checked for the name
                )
                response = await client.send(request, stream=True)
                try:
                    if response.status_code not in _REDIRECTS:
                        _check(response, kind)
                        await receive(response, target, kind, max_bytes)
                        return
                    following = url.join(response.headers.get("location", ""))
                finally:
                    await response.aclose()
                if url.scheme == "https" and following.scheme != "https":
                    raise Refusal(403, "media_redirect", "a redirect may not leave https")
                url = following
        raise Refusal(403, "media_redirect", f"the {kind} lies behind more than {MAX_REDIRECTS} redirects")


def _check(response: httpx.Response, kind: str) -> None:
    if response.status_code != 200:
        raise Refusal(
            422, "media_unreachable", f"the {kind}'s host answered with status {response.status_code}"
        )
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not content_type.startswith(f"{kind}/") and content_type not in _OPAQUE_TYPES:
        raise Refusal(415, "media_type", f"the address holds {content_type[:64]}, which is no {kind}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "media_type", f"the {kind} came with a content encoding that was not asked for")


async def receive(response: httpx.Response, target: BinaryIO, kind: str, max_bytes: int) -> None:
    """Write the body of ``response`` to ``target`` as it comes, undecoded.

    Raises:
        Refusal: (413) it announces more than ``max_bytes``, or sends more.
    """
    announced = response.headers.get("content-length", "")
    received = int(announced) if announced.isdecimal() else 0
    if received <= max_bytes:
        received = 0
        async for block in response.aiter_raw():
            received += len(block)
            if received > max_bytes:
                break
            target.write(block)
    if received > max_bytes:
        raise Refusal(413, "media_too_big", f"the {kind} is larger than {max_bytes} bytes")


def tls_context(*variables: str) -> ssl.SSLContext:
    """Return a context that trusts the authorities in the file that the first variable which is set names."""
    named = next((value for name in variables if (value := os.environ.get(name))), None)
    return _trusting(named or certifi.where())


@lru_cache(maxsize=4)
def _trusting(file: str) -> ssl.SSLContext:  # reading a hundred certificates takes a while
    return ssl.create_default_context(cafile=file)
