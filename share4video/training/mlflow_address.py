"""The address of an MLflow server or database: how it is shown, and whether a server answers there."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from share4video.errors import UserError

SERVERS = ("http://", "https://")
SILENT = "the MLflow server does not answer"
_SERVER_TIMEOUT_S = 5.0
_USER_VARIABLE, _PASSWORD_VARIABLE = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
# What stands before the host: SQLAlchemy lets a password hold slashes, a server's address does not.
_CREDENTIALS = re.compile(r"//(?:[^/?#\s]*@|[^:/@\s]*:[^@\s]*@)")


def shown(text: str) -> str:
    """Return an address, or a text that holds some, without users and passwords."""
    return _CREDENTIALS.sub("//", text)


def first_line(error: Exception) -> str:
    """Return the start of what an error says, without users and passwords."""
    return shown((str(error).splitlines() or [""])[0])[:300]


def hand_over_credentials(uri: str) -> str:
    """Put user and password of a server's address into MLflow's own variables, and return the rest of it.

    MLflow prints the address of every run it ends, and logs that of every request that fails.
    """
    found = re.fullmatch(r"(https?://)([^:/?#]+):([^/?#]+)@(.*)", uri)
    if found is None:
        return uri
    scheme, user, password, rest = found.groups()
    os.environ[_USER_VARIABLE], os.environ[_PASSWORD_VARIABLE] = unquote(user), unquote(password)
    return f"{scheme}{rest}"


def check_server(uri: str) -> None:
    """Ask the server how it is: MLflow's own client would try for minutes.

    Raises:
        UserError: it does not answer, or not as it should.
    """
    import httpx

    user, password = os.environ.get(_USER_VARIABLE), os.environ.get(_PASSWORD_VARIABLE)
    try:
        answer = httpx.get(
            f"{uri.rstrip('/')}/health",
            auth=(user, password) if user and password else None,
            timeout=_SERVER_TIMEOUT_S,
            follow_redirects=True,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(
            f"{SILENT}: {first_line(error) or type(error).__name__}",
            where=shown(uri),
            fix="start it, or unset MLFLOW_TRACKING_URI to track in a local file",
        ) from error
    if answer.is_error:
        raise UserError(
            f"the MLflow server answers {answer.status_code}",
            where=shown(uri),
            fix="check its address, its allowed hosts and the credentials",
        )


def is_silence(error: Exception, uri: str) -> bool:
    """Whether an MlflowException means that the server did not answer, not that it answered with a refusal.

    MLflow raises it while it handles the error of its HTTP client, which is an OSError.
    """
    return uri.startswith(SERVERS) and isinstance(error.__context__, OSError)
