"""Whether a port can be listened on."""

from __future__ import annotations

import socket

from share4video.errors import UserError


def check_port_free(host: str, port: int) -> None:
    """Raise UserError where ``port`` is in use: uvicorn would only log it and exit 1."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"cannot listen on port {port}: {error.strerror}",
                where=host,
                fix="choose another port with --port",
            ) from None
