"""What an engine was measured to take per call, by role: the profile that plans are made from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from share4video.config import Config
from share4video.errors import UserError

MAX_FILE_BYTES = 1 << 20


class RoleRate(Config):
    """One role's calls as they were measured: means over ``calls`` answered calls.

    ``seconds`` is what a call took with ``EngineRates.in_flight`` of them at a time.
    """

    calls: int = Field(ge=1)
    prompt_tokens: float = Field(ge=0)
    tokens: float = Field(ge=0)
    seconds: float = Field(ge=0)


class EngineRates(Config):
    """One engine at one concurrency.

    Attributes:
        engine: ``model@revision``.
        in_flight: how many calls were under way at a time while this was measured.
        roles: by what was asked for: ``first``, ``difference``, ``anchor``, ``summary``, ``fast``, ``brief``.
        prompt_price: of a million prompt tokens, where tokens have a price; ``completion_price`` of answers.
        again: calls made once more, because a caption failed its checks, per call answered.
    """

    engine: str
    in_flight: int = Field(ge=1)
    roles: dict[str, RoleRate] = Field(min_length=1)
    again: float = Field(0.0, ge=0)
    prompt_price: float = Field(0.0, ge=0)
    completion_price: float = Field(0.0, ge=0)

    def role(self, kind: str) -> RoleRate:
        """Return what a call of this kind takes; one that was never measured takes what a like one does.

        An anchor is asked as a first frame is, a window as a difference.

        Raises:
            UserError: nothing like it was measured.
        """
        for name in (kind, *_LIKE.get(kind, ())):
            if name in self.roles:
                return self.roles[name]
        raise UserError(
            f"the engine's rates hold nothing on {kind!r}", where=self.engine, fix="measure them again"
        )


_LIKE: dict[str, tuple[str, ...]] = {
    "anchor": ("first",),
    "first": ("anchor",),
    "difference": ("anchor", "first"),
    "window": ("difference", "anchor", "first"),
    "part": ("summary",),
}


class Measured(Config):
    """A file of rates: one engine per entry, the captioner and, where it is another, the summariser."""

    captioner: EngineRates
    summarizer: EngineRates | None = None

    def engine_of(self, kind: str) -> EngineRates:
        """Return the rates of the engine that answers calls of this kind."""
        return self.summarizer if self.summarizer and kind in TEXT_STEPS else self.captioner


TEXT_STEPS: frozenset[str] = frozenset({"summary", "part", "prompt", "structured"})


def mean_rate(calls: Iterable[tuple[int, int, float]]) -> RoleRate:
    """Return the mean of calls, each (prompt tokens, tokens, seconds); at least one."""
    rows = list(calls)
    prompt, tokens, seconds = (sum(column) / len(rows) for column in zip(*rows, strict=True))
    return RoleRate(
        calls=len(rows), prompt_tokens=round(prompt, 3), tokens=round(tokens, 3), seconds=round(seconds, 6)
    )


def read_rates(path: Path) -> Measured:
    """Read a file of rates that `share4video plan` wrote.

    Raises:
        UserError: it cannot be read or is something else.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError("the file is too large for rates", where=str(path), fix="name another file")
        return Measured.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"cannot read the rates: {error.strerror}", where=str(path), fix="check the path"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"these are no rates: {first['msg']}",
            where=f"{path}, {'.'.join(str(step) for step in first['loc']) or 'the whole'}",
            fix="give a file that --save-rates wrote",
        ) from None
