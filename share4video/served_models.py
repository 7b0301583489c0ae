"""Model servers behind an address: which models they list, and what to say when one does not answer."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from share4video.errors import UserError

API_KEY_VARIABLE = "SHARE4VIDEO_API_KEY"
NO_KEY = "none"  # the client wants one; servers that take none pass over it
OWNER = "share4video"  # what a gateway of ours says of the model it lists
CONNECT_TIMEOUT_S = 10.0
_START_ONE = "start one with share4video serve MODEL, or give the address of one that runs"
_NO_SERVER = "what answers is no model server"
_MAX_MESSAGE = 400  # characters of what a server says; some send a whole page


@dataclass(frozen=True)
class ListedModel:
    """A model as a server lists it, and who owns it by its word."""

    name: str
    owner: str = ""


def model_address(url: str) -> str:
    """Return an OpenAI-compatible address with its ``/v1``. Raises UserError where it is no address."""
    trimmed = url.rstrip("/")
    try:
        parts = urlsplit(trimmed)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # half a bracket, a port that is no number
        whole = None
    if not whole:
        raise UserError("this is no address", where=url, fix="write it as http://HOST:PORT")
    return trimmed if trimmed.endswith("/v1") else f"{trimmed}/v1"


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine, where no proxy from the environment can reach it."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def http_library() -> Any:
    """Return the HTTP library under the client: httpx, or httpx2 in its later versions."""
    import openai

    return sys.modules[openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]]


def connection_options(url: str) -> dict[str, Any]:
    """Return what every HTTP client of an address is made with: ``trust_env`` and ``verify``.

    A proxy from the environment cannot reach this machine's own servers. Certificates are read once, not for
    every client: that takes longer than most requests.
    """
    trust_env = not is_loopback(url)
    named = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    return {"trust_env": trust_env, "verify": _certificates(trust_env, *named)}


@cache
def _certificates(trust_env: bool, *_named: str | None) -> ssl.SSLContext:
    found: ssl.SSLContext = http_library().create_ssl_context(trust_env=trust_env)
    return found


def list_models(
    url: str, *, naming: str, named: bool = False, api_key: str = NO_KEY, timeout_s: float = 600.0
) -> list[ListedModel]:
    """Return the models an address lists.

    Args:
        url: up to and including ``/v1``.
        naming: how a person names the model, for the sentence.
        named: whether that was done: then a server that cannot list any (``transformers serve`` without a
            cache fails, others have no such route) will do, and nothing is returned.

    Raises:
        UserError: no model server answers there, or none is named and none is listed.
    """
    import openai

    timeout = http_library().Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))
    library = openai.DefaultHttpxClient(**connection_options(url))
    with openai.OpenAI(
        base_url=url, api_key=api_key, timeout=timeout, max_retries=0, http_client=library
    ) as client:
        try:
            with plain_errors(url, timeout_s=timeout_s):
                answer = client.models.with_raw_response.list().http_response
        except UserError as error:
            cause = error.__cause__
            if named and isinstance(cause, openai.InternalServerError | openai.NotFoundError):
                return []
            if isinstance(cause, openai.NotFoundError):
                raise UserError(_NO_SERVER, where=url, fix=_START_ONE) from cause
            if isinstance(cause, openai.InternalServerError):
                what = f"the address does not list its models: it answers with status {cause.status_code}"
                raise UserError(what, where=url, fix=naming) from cause
            raise
    try:
        listed = [ListedModel(str(one["id"]), str(one.get("owned_by", ""))) for one in answer.json()["data"]]
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # a web server, perhaps
        raise UserError(_NO_SERVER, where=url, fix=_START_ONE) from error
    if not listed and not named:
        raise UserError("the address does not say which model it serves", where=url, fix=naming)
    return listed


@contextmanager
def plain_errors(url: str, *, timeout_s: float, patience: str = "") -> Iterator[None]:
    """Say in a sentence what goes wrong between here and a model server.

    Args:
        timeout_s: how long nothing may come.
        patience: how a person has it wait for longer.

    Raises:
        UserError: nothing answers, the answer is late, broke off or is none, or the request is refused (in
            the server's own words).
    """
    import openai

    library = http_library()
    try:
        yield
    except (openai.APITimeoutError, library.TimeoutException) as error:  # the latter between two pieces
        fix = " or ".join(filter(None, ["ask again when the model server has less to do", patience]))
        what = f"nothing came from the model within {timeout_s:g} seconds"
        raise UserError(what, where=url, fix=fix) from error
    except openai.APIConnectionError as error:
        raise UserError("no model answers", where=url, fix=_START_ONE) from error
    except openai.APIError as error:
        raise _refused(url, error) from error
    except (library.TransportError, ValueError, LookupError, TypeError, AttributeError) as error:
        fix = "ask again; if it stays so, see the model server's log"
        raise UserError("the answer broke off, or is none", where=url, fix=fix) from error


def _refused(url: str, error: Any) -> UserError:
    """Return what the server says; what is the asker's to mend comes in its own words."""
    import openai

    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else None
    said = " ".join(str(said or error).split()).rstrip(".")
    if len(said) > _MAX_MESSAGE:
        said = f"{said[:_MAX_MESSAGE]}…"
    status = error.status_code if isinstance(error, openai.APIStatusError) else 500
    if status in (401, 403):
        fix = f"set {API_KEY_VARIABLE} to one it takes"
        return UserError(f"the model's server refuses the key: {said}", where=url, fix=fix)
    if status in (429, 503):
        return UserError(f"the model has too much to do: {said}", where=url, fix="ask again in a moment")
    if status < 500:
        return UserError(said)
    return UserError(
        f"the model's server failed: {said}", where=url, fix="ask again, or see that server's log for more"
    )
