"""Whether a port can be listened on."""

from __future__ import annotations

import errno
import socket

from share4video.errors import UserError


def check_port_free(host: str, port: int) -> None:
    """Raise UserError where ``port`` of ``host`` cannot be had: uvicorn would only log it and exit 1."""
    try:
        with socket.socket(family_of(host)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, UnicodeError) as error:  # the second: no host name at all
        reason = error.strerror if isinstance(error, OSError) else "this is no host"
        taken = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
        raise UserError(
            f"cannot listen on port {port}: {reason}",
            where=host,
            fix="choose another port with --port" if taken else "give --host an address of this machine",
        ) from None


def family_of(host: str) -> socket.AddressFamily:
    """Return the kind of address ``host`` is, or resolves to."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET
