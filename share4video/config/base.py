"""Base of all configurations."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of all configurations: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def without(self, *names: str) -> Self:
        """Return a copy with some settings at their defaults: those that an output does not depend on."""
        return self.model_copy(update={name: type(self).model_fields[name].default for name in names})
