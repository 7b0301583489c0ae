"""What answers cost: tokens by engine, their price, and a budget that ends a run before it costs more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from share4video.captioning.client import Completion
from share4video.config import EngineSpec
from share4video.errors import UserError

TOKENS_PER_PRICE = 1e6  # prices are per million tokens
_PROMPT, _COMPLETION = "_prompt_tokens", "_completion_tokens"


class Spending:
    """Tokens by the name of the engine they went through: of prompts, and of answers."""

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[int, int]] = {}

    def add(self, engine: str, answer: Completion) -> None:
        self._add(engine, answer.prompt_tokens, answer.completion_tokens)

    def add_all(self, other: Spending) -> None:
        for engine, tokens in other._tokens.items():
            self._add(engine, *tokens)

    def _add(self, engine: str, prompt: int, completion: int) -> None:
        before = self._tokens.get(engine, (0, 0))
        self._tokens[engine] = (before[0] + prompt, before[1] + completion)

    @property
    def tokens(self) -> int:
        return sum(map(sum, self._tokens.values()))

    def cost(self, engines: Mapping[str, EngineSpec]) -> float:
        """Return the price, in the unit of the engines' prices; an engine without a price is free."""
        return sum(
            (prompt * engines[name].prompt_price + completion * engines[name].completion_price)
            / TOKENS_PER_PRICE
            for name, (prompt, completion) in self._tokens.items()
            if name in engines
        )

    def counts(self) -> dict[str, float]:
        """Return it as counts of a shard: ``metric:<engine>_prompt_tokens`` and so on."""
        return dict(self._named())

    def _named(self) -> Iterator[tuple[str, float]]:
        for name, (prompt, completion) in sorted(self._tokens.items()):
            yield f"metric:{name}{_PROMPT}", prompt
            yield f"metric:{name}{_COMPLETION}", completion

    @classmethod
    def of_counts(cls, counts: Mapping[str, float]) -> Spending:
        """Read back what `counts` gave; other counts are left alone."""
        spent = cls()
        for name, value in counts.items():
            engine = name.removeprefix("metric:")
            if engine.endswith(_PROMPT):
                spent._add(engine.removesuffix(_PROMPT), int(value), 0)
            elif engine.endswith(_COMPLETION):
                spent._add(engine.removesuffix(_COMPLETION), 0, int(value))
        return spent


class BudgetReached(Exception):
    """No further call may be made; those under way are paid for and are waited for."""


@dataclass(frozen=True)
class Budget:
    """How much may be spent; None is no bound.

    A call goes out as long as less than this is spent: it is exceeded by the calls in flight at most.

    Attributes:
        engines: whose prices hold, by the names that spending is counted under.
        max_cost: in the unit of the prices.
        max_tokens: of prompts and answers together.
        before: what was spent elsewhere.
        share: of what that leaves, the part that is for this one.
    """

    engines: Mapping[str, EngineSpec]
    max_cost: float | None
    max_tokens: int | None
    before: Spending = field(default_factory=Spending)
    share: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError where the cost is bounded and nothing has a price."""
        if self.max_cost is not None and not any(
            spec.prompt_price or spec.completion_price for spec in self.engines.values()
        ):
            raise UserError(
                "caption.max_cost bounds nothing: no engine has a price",
                where=f"caption.max_cost {self.max_cost:.10g}",
                fix="set prompt_price and completion_price of the engines, or caption.max_tokens_total",
            )

    def check(self, answer: Completion) -> None:
        """Raise UserError where an answer does not tell what it took: then no budget can be kept."""
        if not answer.prompt_tokens and not answer.completion_tokens:
            raise UserError(
                "the engine does not tell how many tokens its answers take, so no budget can be kept",
                where="usage of a chat completion",
                fix="have it report usage, or leave caption.max_cost and caption.max_tokens_total out",
            )

    def reached(self, spent: Spending) -> bool:
        """Return whether nothing is left."""
        if self.max_cost is not None:
            left = self.max_cost - self.before.cost(self.engines)
            if spent.cost(self.engines) >= left * self.share:
                return True
        return self.max_tokens is not None and spent.tokens >= (
            (self.max_tokens - self.before.tokens) * self.share
        )

    def error(self, spent: Spending) -> UserError:
        """Return what to tell a person whose run ended here, after ``spent``."""
        total = Spending()
        total.add_all(self.before)
        total.add_all(spent)
        bounds = [
            f"caption.{name} {bound:.10g}"
            for name, bound in (("max_cost", self.max_cost), ("max_tokens_total", self.max_tokens))
            if bound is not None
        ]
        what = f"the budget is spent: {total.tokens} tokens"
        if cost := total.cost(self.engines):
            what += f", cost {cost:.6g}"
        if self.share < 1:
            what += f", and of the rest {self.share:.0%} was for this shard"
        return UserError(
            what, where=" and ".join(bounds), fix="raise it and run again: what was answered is kept"
        )
