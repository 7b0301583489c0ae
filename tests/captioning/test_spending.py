from __future__ import annotations

import pytest

from share4video.captioning.client import Completion
from share4video.captioning.spending import Budget, Spending
from share4video.config import EngineSpec
from share4video.errors import UserError

DEAR = EngineSpec(url="http://x/v1", model="dear", prompt_price=2.0, completion_price=10.0)
FREE = EngineSpec(url="http://y/v1", model="free")
ENGINES = {"captioner": DEAR, "summarizer": FREE}


def spent(**tokens: tuple[int, int]) -> Spending:
    spending = Spending()
    for engine, (prompt, completion) in tokens.items():
        spending.add(engine, Completion("", "stop", prompt, completion))
    return spending


def test_tokens_are_counted_by_engine_and_priced_per_million() -> None:
    spending = spent(captioner=(1_000_000, 500_000), summarizer=(7, 3))
    assert spending.tokens == 1_500_010
    assert spending.cost(ENGINES) == pytest.approx(2.0 + 5.0)
    spending.add_all(spent(captioner=(0, 100_000)))
    assert spending.cost(ENGINES) == pytest.approx(8.0)


def test_counts_of_a_shard_are_read_back() -> None:
    counts = spent(captioner=(5, 2), summarizer=(3, 1)).counts()
    assert counts == {
        "metric:captioner_prompt_tokens": 5,
        "metric:captioner_completion_tokens": 2,
        "metric:summarizer_prompt_tokens": 3,
        "metric:summarizer_completion_tokens": 1,
    }
    assert Spending.of_counts({**counts, "rows_in": 7, "metric:fallbacks": 2}).counts() == counts


@pytest.mark.parametrize(
    ("max_cost", "max_tokens", "share", "reached"),
    [
        (None, 20, 1.0, False),
        (None, 19, 1.0, True),
        (None, 28, 0.5, True),
        (None, 30, 0.5, False),
        (65e-6, None, 1.0, False),
        (59e-6, None, 1.0, True),
        (59e-6, 1000, 1.0, True),
        (1.0, 1000, 1.0, False),
    ],
)
def test_a_budget_holds_for_what_was_spent_before_too(
    max_cost: float | None, max_tokens: int | None, share: float, reached: bool
) -> None:
    """Before: 10 tokens, 52 millionths. Now: 9 tokens, 8 millionths."""
    before, now = spent(captioner=(6, 4)), spent(captioner=(4, 0), summarizer=(5, 0))
    budget = Budget(ENGINES, max_cost, max_tokens, before, share)
    assert budget.reached(now) is reached


def test_who_reaches_it_is_told_what_was_spent() -> None:
    budget = Budget(ENGINES, 1.5, None, spent(captioner=(500_000, 0)), 0.25)
    error = budget.error(spent(captioner=(250_000, 0)))
    assert error.what.startswith("the budget is spent: 750000 tokens, cost 1.5")
    assert "25%" in error.what
    assert error.where == "caption.max_cost 1.5"


def test_a_budget_that_cannot_be_kept_is_a_users_error() -> None:
    with pytest.raises(UserError, match="no engine has a price"):
        Budget({"captioner": FREE}, 1.0, None)
    budget = Budget({"captioner": FREE}, None, 100)
    budget.check(Completion("", "stop", 0, 1))
    with pytest.raises(UserError, match="does not tell how many tokens"):
        budget.check(Completion("text", "stop", 0, 0))
