"""Files over https that a list names: only below an allowed prefix, at every hop, bounded in time.

A host is resolved once and that address is connected to. Private addresses are refused, unless the allowed
prefix spells the address itself.
"""

from __future__ import annotations

import io
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO, cast

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from share4video.media.addresses import Address, Network, address_allowed
from share4video.media.limits import MediaError
from share4video.media.sources.allow import web_prefix
from share4video.media.sources.cache import LocalCopies
from share4video.media.sources.place import NOT_ALLOWED, Place

ATTEMPTS = 4
MAX_REDIRECTS = 3
TIMEOUT_S, TOTAL_S = 30.0, 900.0  # of one wait on the network, and of the whole file
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRY_AGAIN = frozenset({408, 429, 500, 502, 503, 504})


class _Unreachable(Exception):
    """What may go better another time."""


@dataclass(frozen=True)
class HttpsFile(Place):
    """What an ``https://`` address answers.

    Attributes:
        allow: the prefixes that it and its redirects may be below.
    """

    url: str
    allow: tuple[str, ...]

    @property
    def where(self) -> str:
        return self.url

    def size(self) -> None:
        return None

    def fingerprint(self) -> str:
        with LocalCopies.of_environment().added(self) as copy:
            return f"sha256:{copy.content_hash}"

    def open(self, start: int = 0, length: int | None = None) -> BinaryIO:
        assert start == 0 and length is None, "not every server knows ranges"
        try:
            return cast(BinaryIO, io.BufferedReader(_Answer(*self._answered()), 1 << 20))
        except _Unreachable as error:
            raise MediaError("unreadable", f"it cannot be fetched: {error}") from error

    @retry(
        retry=retry_if_exception_type(_Unreachable),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(0.2, max=5),
        reraise=True,
    )
    def _answered(self) -> tuple[httpx.Client, httpx.Response]:
        """Follow redirects to an answer of status 200, whose body is still to be read."""
        url = self.url
        # trust_env off: a proxy from the environment would resolve the name again, past the pinned address.
        client = httpx.Client(verify=_tls_context(), trust_env=False, timeout=TIMEOUT_S)
        try:
            for _ in range(MAX_REDIRECTS + 1):
                response = _ask(client, httpx.URL(url), web_prefix(url, self.allow))
                if response.status_code == 200:
                    return client, response
                response.close()
                if response.status_code not in _REDIRECTS:
                    raise _refusal(response.status_code)
                url = str(httpx.URL(url).join(response.headers.get("location", "")))
            raise MediaError("unreadable", f"it lies behind more than {MAX_REDIRECTS} redirects")
        except (httpx.InvalidURL, ValueError) as error:
            client.close()
            raise MediaError("unreadable", "it leads to what is no address") from error
        except BaseException:
            client.close()
            raise


class _Answer(io.RawIOBase):
    """The body of an answer, within the time a whole file may take."""

    def __init__(self, client: httpx.Client, response: httpx.Response) -> None:
        self._client, self._response = client, response
        self._blocks: Iterator[bytes] = response.iter_raw()
        self._rest = b""
        self._deadline = time.monotonic() + TOTAL_S

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            while not self._rest:
                self._rest = next(self._blocks)
        except StopIteration:
            return 0
        except httpx.HTTPError as error:
            raise MediaError("unreadable", f"it breaks off ({type(error).__name__})") from error
        if time.monotonic() > self._deadline:
            raise MediaError("unreadable", f"it takes longer than {TOTAL_S:g} s to fetch", bound=TOTAL_S)
        block, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._response.close()
        self._client.close()
        super().close()


def _ask(client: httpx.Client, url: httpx.URL, prefix: str) -> httpx.Response:
    request = client.build_request(
        "GET",
        url.copy_with(host=_pinned(url, httpx.URL(prefix).host)),
        headers={"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"},
        extensions={"sni_hostname": url.host},  # certificates are still checked for the name
    )
    try:
        return client.send(request, stream=True)
    except httpx.HTTPError as error:
        raise _Unreachable(type(error).__name__) from error


def _pinned(url: httpx.URL, allowed_host: str) -> str:
    try:
        found = socket.getaddrinfo(url.host, url.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _Unreachable(f"the host {url.host} does not resolve") from None
    addresses: list[Address] = [ipaddress.ip_address(str(entry[4][0])) for entry in found]
    if not all(address_allowed(address, _spelled(allowed_host)) for address in addresses):
        raise MediaError(NOT_ALLOWED, f"{url.host} has a private address, which no allowed prefix spells")
    return str(addresses[0])


def _spelled(host: str) -> Sequence[Network]:
    """Return the one address that an allowed host spells, as a network; a name spells none."""
    try:
        return [ipaddress.ip_network(host)]
    except ValueError:
        return []


def _refusal(status: int) -> Exception:
    if status in _TRY_AGAIN:
        return _Unreachable(f"the host answers with status {status}")
    return MediaError("unreadable", f"it cannot be fetched: the host answers with status {status}")


def _tls_context() -> ssl.SSLContext:
    return _trusting(os.environ.get("SSL_CERT_FILE"))


@cache
def _trusting(given: str | None) -> ssl.SSLContext:  # a client per file, and certificates take a while
    context = ssl.create_default_context()
    if given:
        context.load_verify_locations(given)
    return context
