"""What a benchmark was to show: each measured value beside its bar."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt}


@dataclass(frozen=True)
class Bar:
    """A value and what it is held against: ``>=``, ``<=`` or ``>``, a space, and a number."""

    what: str
    value: float
    bar: str

    @property
    def met(self) -> bool:
        sign, bound = self.bar.split()
        return bool(_COMPARE[sign](self.value, float(bound)))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def bars_table(bars: Sequence[Bar]) -> Table:
    """Draw the bars."""
    table = Table(title="What was to be shown", title_justify="left")
    for heading in ("what", "value", "bar", "met"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for bar in bars:
        table.add_row(bar.what, f"{bar.value:.4g}", bar.bar, "yes" if bar.met else "no")
    return table
