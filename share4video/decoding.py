"""How an answer is drawn, whoever draws it: a server, or a model in this process."""

from __future__ import annotations

import math
from dataclasses import dataclass

from share4video.errors import UserError

LEAST_TEMPERATURE = 1e-2  # also the least vLLM draws with


@dataclass(frozen=True)
class Decoding:
    """How an answer is drawn: greedy at temperature 0; a seed makes a drawn one repeatable.

    Attributes:
        temperature: below 0.01 it is 0: so cold a draw takes the likeliest token, and logits divided by much
            less leave float32.
        stop: strings that end the answer; none is part of it.

    Raises:
        UserError: a value is out of its bounds.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        bounds = (
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < math.inf, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("stop", all(self.stop), "no empty string"),
        )
        for name, holds, needed in bounds:
            if not holds:
                raise UserError(f"{name} is {getattr(self, name)!r}", fix=f"give {needed}")
        if self.temperature < LEAST_TEMPERATURE:
            object.__setattr__(self, "temperature", 0.0)


GREEDY = Decoding()
