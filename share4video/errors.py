"""What a person did wrong, said in one sentence: what, where, what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ERROR_FILE_VARIABLE = "SHARE4VIDEO_ERROR_FILE"
USER_ERROR_EXIT_CODE = 2


class UserError(Exception):
    """A mistake the user can mend; the CLI prints it without a traceback and exits 2.

    Args:
        what: what went wrong, without a full stop.
        where: the file, key, address or row it went wrong at.
        fix: what to do about it, as a sentence without a full stop.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """Return the message as a person reads it."""
        place = f" ({self.where})" if self.where else ""
        remedy = f": {self.fix}" if self.fix else ""
        return f"{self.what}{place}{remedy}."


@contextmanager
def reading(what: str, where: str | Path) -> Iterator[None]:
    """Say in a sentence what the file system complains of inside the block.

    Args:
        what: what is read there, such as "the folder".
        where: its path, for complaints that name none.

    Raises:
        UserError: there was an OSError, such as a missing permission.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot read {what}: {error.strerror or error}",
            where=str(error.filename or where),
            fix="check the path and its permissions",
        ) from error


def record_user_error(error: UserError) -> None:
    """Leave the error for the process that started this one.

    A pipeline task runs in a child of the KFP runner, whose own report of a failure is hundreds of
    lines long; the parent names a file in ``SHARE4VIDEO_ERROR_FILE`` and prints what it finds there.
    """
    path = os.environ.get(ERROR_FILE_VARIABLE)
    if path:
        write_user_error(error, Path(path))


def write_user_error(error: UserError, path: Path) -> None:
    """Write the error to ``path``, whole or not at all, for `read_user_error`."""
    fields = {"what": error.what, "where": error.where, "fix": error.fix}
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    partial.write_text(json.dumps(fields), encoding="utf-8")
    os.replace(partial, path)


def read_user_error(path: Path) -> UserError | None:
    """Return the error a child recorded at ``path``, or None where it recorded none."""
    if not path.is_file():
        return None
    fields = json.loads(path.read_text(encoding="utf-8"))
    return UserError(fields["what"], where=fields["where"], fix=fields["fix"])
