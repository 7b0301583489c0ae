"""When a stage has failed although every row is answered for: nothing is left, or too much cannot be read."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.media.limits import FAILURES
from share4video.stages.contract import StageResult
from share4video.store import Store


def refuse_failures(
    result: StageResult,
    store: Store,
    *,
    max_share: float,
    setting: str,
    where: str,
    failures: Set[str] = FAILURES,
) -> None:
    """Check the share of a published output's rows that failed; what failed is not what was filtered.

    Args:
        result: its rejects are published, so that they can be looked at.
        max_share: of the rows that came in.
        setting: the bound's name, as ``probe.max_failed_share``.
        where: what the rows are of, for a person.
        failures: reasons that are failures.

    Raises:
        UserError: more failed. It names the commonest reason, with an example.
    """
    failed = sum(number for reason, number in result.rejects.items() if reason in failures)
    if not failed or failed <= max_share * result.rows_in:
        return
    reason, number, example = commonest_reject(result, store, failures)
    raise UserError(
        f"{failed} of {result.rows_in} rows failed, over the {max_share:.0%} allowed,"
        f" {number} of them as {reason}",
        where=where,
        fix=f"mend them or raise {setting}; for one, {example['source_uri']}: {example['sentence']}",
    )


def refuse_empty(result: StageResult, store: Store, *, where: str) -> None:
    """Check that something is left of the rows of a published output.

    Raises:
        UserError: there were rows and none was kept. It names the commonest reason, with an example.
    """
    if result.rows_out or not result.rows_in:
        return
    reason, number, example = commonest_reject(result, store)
    raise UserError(
        f"none of {result.rows_in} rows is left, {number} of them rejected as {reason}",
        where=where,
        fix=f"for one, {example['source_uri']}: {example['sentence']}",
    )


def commonest_reject(
    result: StageResult, store: Store, among: Set[str] | None = None
) -> tuple[str, int, dict[str, Any]]:
    """Return the commonest reason of a published output's rejects, how many they are, and the first of them.

    Args:
        among: reasons that count; all where it is None.
    """
    counted = {reason: n for reason, n in result.rejects.items() if among is None or reason in among}
    reason, number = max(counted.items(), key=lambda item: (item[1], item[0]))
    rejects = read_table(store, result.ref, "rejects").to_pylist()
    return reason, number, next(row for row in rejects if row["reason"] == reason)
