"""What a list may name. A list comes from outside: it must not make this machine read what it likes.

By default a list names what lies below its own folder or prefix. Everything else needs a prefix that the user
allowed: a folder, ``s3://bucket/prefix`` or ``https://host/path/``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import httpx

from share4video.media.limits import MediaError
from share4video.media.sources.place import NOT_ALLOWED


def local_path(uri: str, home: Path | None, allow: Sequence[str]) -> Path:
    """Return the file that a list's local path means, links resolved.

    Args:
        home: the list's folder; None where the list is elsewhere.

    Raises:
        MediaError: it lies neither below ``home`` nor below an allowed folder (``not_allowed``).
    """
    if ".." in uri.split("/") or "\0" in uri:
        raise not_allowed(uri)
    if home is None and not os.path.isabs(uri):
        raise not_allowed(uri)
    real = Path(os.path.realpath(uri if home is None else home / uri))
    folders = [*([] if home is None else [home]), *(Path(prefix) for prefix in allow if "://" not in prefix)]
    if not any(real.is_relative_to(os.path.realpath(folder)) for folder in folders):
        raise not_allowed(uri)
    return real


def check_object(uri: str, home: str | None, allow: Sequence[str]) -> None:
    """Check an ``s3://`` address against the list's own prefix and those allowed.

    Raises:
        MediaError: it lies below none of them (``not_allowed``).
    """
    prefixes = [*([] if home is None else [home]), *allow]
    if ".." in uri.split("/") or not any(_is_below(uri, prefix) for prefix in prefixes):
        raise not_allowed(uri)


def web_prefix(url: str, allow: Sequence[str]) -> str:
    """Return the allowed prefix that an ``https://`` address lies below.

    Raises:
        MediaError: there is none (``not_allowed``).
    """
    try:
        asked = httpx.URL(url)
        for prefix in allow:
            if prefix.startswith("https://") and _is_at(asked, httpx.URL(prefix)):
                return prefix
    except httpx.InvalidURL:
        pass
    raise not_allowed(url)


def _is_at(asked: httpx.URL, prefix: httpx.URL) -> bool:
    path = unquote(asked.path)
    return (
        (asked.scheme, asked.host, asked.port) == (prefix.scheme, prefix.host, prefix.port)
        and not asked.userinfo
        and "\\" not in path
        and ".." not in unquote(path).split("/")
        and _is_below(path, unquote(prefix.path))
    )


def _is_below(text: str, prefix: str) -> bool:
    return text == prefix or text.startswith(prefix.rstrip("/") + "/")


def not_allowed(uri: str) -> MediaError:
    return MediaError(NOT_ALLOWED, f"{uri} lies neither below the list nor below a prefix that is allowed")
