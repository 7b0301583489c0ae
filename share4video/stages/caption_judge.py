"""The judge's part of the caption stage: rows of ``judgements``, and what their mean says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from share4video.captioning.client import ChatClient, Endpoint
from share4video.captioning.differential import Failure
from share4video.captioning.engine import identity
from share4video.captioning.journal import Journal
from share4video.captioning.judge import (
    CRITERIA,
    JUDGE,
    UNPARSABLE,
    JudgeConversation,
    Verdict,
    is_judged,
    version,
)
from share4video.captioning.scheduler import Finished, converse
from share4video.captioning.spending import Budget, Spending
from share4video.dataset.shards import table_from_rows
from share4video.evaluation.bootstrap import mean_interval
from share4video.stages.caption_spool import ClipSpool

Row = Mapping[str, Any]


async def judge_clips(
    clips: ClipSpool,
    share: float,
    endpoint: Endpoint,
    journal: Journal,
    budget: Budget | None = None,
) -> tuple[list[Row], Spending]:
    """Put the summaries of a share of the clips before the judge.

    Returns one row of ``judgements`` for each, and the tokens of all its answers.

    Args:
        clips: all finished.

    Raises:
        UserError: the judge refuses the key or everything, or does not answer, or the budget is spent.
    """
    jobs = _JudgeJobs(clips, share, endpoint.spec.system_message)
    results: dict[str, Verdict | Failure] = {}
    spent = Spending()

    def done(finished: Finished) -> None:
        assert isinstance(finished.conversation, JudgeConversation)
        assert finished.conversation.result is not None
        results[jobs.clip_ids[finished.number]] = finished.conversation.result
        spent.add_all(finished.spent)

    async with ChatClient(endpoint) as client:
        await converse(jobs, {JUDGE: client}, journal, done, budget=budget)
    by = {"role": "summary", "engine": identity(endpoint.spec), "prompt_version": version(endpoint.spec)}
    return [{"clip_id": clip_id, **_points(results[clip_id]), **by} for clip_id in sorted(results)], spent


class _JudgeJobs:
    """The clips of the share that have a summary, as conversations of one call."""

    def __init__(self, clips: ClipSpool, share: float, system_message: bool) -> None:
        self._clips, self._system_message = clips, system_message
        chosen = [
            (number, clip["clip_id"], chain.summary.text)
            for number, (clip, chain) in enumerate(clips.finished())
            if chain.summary is not None and chain.rejection is None and is_judged(clip["clip_id"], share)
        ]
        self._numbers = [number for number, _, _ in chosen]
        self.clip_ids = [clip_id for _, clip_id, _ in chosen]
        self._summaries = [summary for _, _, summary in chosen]
        self.weights = np.ones(len(chosen), np.int32)

    def open(self, number: int) -> tuple[str, JudgeConversation]:
        clip_id, frames = self._clips.load(self._numbers[number])
        summary = self._summaries[number]
        return clip_id, JudgeConversation(clip_id, frames, summary, system_message=self._system_message)


def _points(result: Verdict | Failure) -> Row:
    if isinstance(result, Failure):
        return {**dict.fromkeys(CRITERIA), "score": None, "reason": result.sentence}
    return {**result.model_dump(), "score": result.score}


def judgement_table(rows: Sequence[Row]) -> pa.Table:
    return table_from_rows("judgements", rows)


def judgement_counts(rows: Sequence[Row]) -> dict[str, float]:
    """Return what a shard counts: judged clips, and of those the ones without a verdict that can be read."""
    return {
        "metric:judged": len(rows),
        "metric:judge_unparsable": sum(row["reason"] == UNPARSABLE for row in rows),
    }


def judge_metrics(judgements: pa.Table) -> dict[str, float]:
    """Return the mean score of 3 and of each criterion, with 95 % bootstrap intervals over clips."""
    rows = judgements.filter(judgements["score"].is_valid()).sort_by("clip_id")
    if not rows.num_rows:
        return {}
    metrics: dict[str, float] = {}
    for name in ("score", *CRITERIA):
        mean = mean_interval(np.asarray(rows[name].to_pylist(), np.float64))
        metrics |= {
            f"judge_{name}": mean.estimate,
            f"judge_{name}_low": mean.low,
            f"judge_{name}_high": mean.high,
        }
    return metrics
