"""Which address is sent which key. A key is for whoever gave it: no other host may see it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from share4video.served_models import API_KEY_VARIABLE, NO_KEY

KEY_VARIABLES = {
    "chat": "SHARE4VIDEO_CHAT_API_KEY",
    "captioner": "SHARE4VIDEO_CAPTION_API_KEY",
    "summarizer": "SHARE4VIDEO_SUMMARIZER_API_KEY",
}


def api_keys(addresses: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the key for each of ``addresses``, by role.

    A role's own variable comes first, then that of another role with the same origin. The variable for all is
    read only where all addresses have one origin.
    """
    origins = {role: _origin(address) for role, address in addresses.items()}
    own = {role: environment.get(KEY_VARIABLES[role], "") for role in addresses}
    shared = environment.get(API_KEY_VARIABLE, "") if len(set(origins.values())) == 1 else ""
    keys = {}
    for role, origin in origins.items():
        neighbours = [own[other] for other in origins if origins[other] == origin]
        keys[role] = next(filter(None, [own[role], *neighbours, shared]), NO_KEY)
    return keys


def _origin(address: str) -> tuple[str, str, int | None]:
    parts = urlsplit(address)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port
