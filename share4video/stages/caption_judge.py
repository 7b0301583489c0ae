"""The judge's part of the caption stage: rows of ``judgements``, and what their mean says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from share4video.captioning.client import ChatClient, Endpoint
from share4video.captioning.differential import Chain, Failure
from share4video.captioning.engine import identity
from share4video.captioning.journal import Journal
from share4video.captioning.judge import (
    CRITERIA,
    JUDGE,
    UNPARSABLE,
    VERSION,
    JudgeConversation,
    Verdict,
    is_judged,
)
from share4video.captioning.role_inputs import KeyFrame
from share4video.captioning.scheduler import Conversation, Job, converse
from share4video.dataset.shards import table_from_rows
from share4video.evaluation.bootstrap import mean_interval

Row = Mapping[str, Any]


async def judge_clips(
    frames: Mapping[str, Sequence[KeyFrame]],
    chains: Mapping[str, Chain],
    share: float,
    endpoint: Endpoint,
    journal: Journal,
) -> list[Row]:
    """Put the summaries of a share of the clips before the judge; one row of ``judgements`` for each.

    Args:
        frames: the clips' key frames by clip.

    Raises:
        UserError: the judge refuses the key or everything, or does not answer.
    """
    summaries = {
        clip_id: chain.summary.text
        for clip_id, chain in chains.items()
        if chain.summary is not None and is_judged(clip_id, share)
    }
    results: dict[str, Verdict | Failure] = {}

    def done(clip_id: str, conversation: Conversation) -> None:
        assert isinstance(conversation, JudgeConversation)
        assert conversation.result is not None
        results[clip_id] = conversation.result

    jobs = [
        Job(clip_id, 1, partial(JudgeConversation, clip_id, frames[clip_id], text))
        for clip_id, text in summaries.items()
    ]
    async with ChatClient(endpoint) as client:
        await converse(jobs, {JUDGE: client}, journal, done)
    by = {"role": "summary", "engine": identity(endpoint.spec), "prompt_version": VERSION}
    return [{"clip_id": clip_id, **_points(results[clip_id]), **by} for clip_id in sorted(results)]


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
