"""Which hosts and addresses media may be fetched from."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

import httpx

from serving.gateway.refusal import Refusal
from share4video.media.addresses import Network, address_allowed

Resolver = Callable[[str, int], Awaitable[list[str]]]

DEFAULT_PORTS = {"http": 80, "https": 443}


async def system_resolver(host: str, port: int) -> list[str]:
    """Return the addresses the system resolves ``host`` to. Raises OSError where it resolves to none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def host_allowed(url: httpx.URL, allowed: Sequence[str]) -> bool:
    """Whether the list names the host of ``url``, with its port where that is not the scheme's own."""
    host, port = _host(url), url.port or DEFAULT_PORTS[url.scheme]
    for entry in allowed:
        name, _, named_port = entry.lower().partition(":")
        if port != (int(named_port) if named_port else DEFAULT_PORTS[url.scheme]):
            continue
        if host == name or (name.startswith("*.") and host.endswith(name[1:])):
            return True
    return False


async def pinned_address(
    url: httpx.URL, *, allowed_hosts: Sequence[str], networks: Sequence[Network], resolve: Resolver
) -> str:
    """Return the address to connect to for ``url``.

    The name is resolved once and the caller connects to what came back, so that a name which answers
    differently the second time (DNS rebinding) gains nothing.

    Raises:
        Refusal: the scheme is not http(s), the URL carries credentials, the host is not in the list, does not
            resolve, or any address it resolves to is neither public nor allowed.
    """
    if url.scheme not in DEFAULT_PORTS or not url.host:
        raise Refusal(400, "media_scheme", f"media cannot be fetched over {url.scheme or 'no scheme'}")
    if url.userinfo:
        raise Refusal(400, "media_credentials", "a media URL must not carry a user name or a password")
    if not host_allowed(url, allowed_hosts):
        raise Refusal(
            403, "media_host", f"media may not be fetched from {_place(url)}: the host is not in the list"
        )
    try:
        found = await resolve(_host(url), url.port or DEFAULT_PORTS[url.scheme])
    except (OSError, UnicodeError):  # the second: an empty label, or one too long
        raise Refusal(422, "media_unreachable", f"the media host {url.host} does not resolve") from None
    addresses = [ipaddress.ip_address(text) for text in found]
    if not addresses:
        raise Refusal(422, "media_unreachable", f"the media host {url.host} does not resolve")
    if not all(address_allowed(address, networks) for address in addresses):
        raise Refusal(403, "media_private", f"media may not be fetched from {_place(url)}: a private address")
    return str(addresses[0])


def _host(url: httpx.URL) -> str:
    """Return the name as it is resolved: in ASCII, in lower case."""
    return url.raw_host.decode("ascii").lower().rstrip(".")


def _place(url: httpx.URL) -> str:
    return url.netloc.decode("ascii", "replace")[:256]
