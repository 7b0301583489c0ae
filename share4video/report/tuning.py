"""What fine-tuning was worth: the same questions to the model before and after, and the gate's decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from share4video.dataset.manifest import load_manifest
from share4video.dataset.shards import read_file
from share4video.evaluation.bootstrap import Interval, mean_interval
from share4video.evaluation.gate import GateDecision
from share4video.evaluation.results import CONTROL, RESULTS, Answer, Results, read_results
from share4video.report.run_tables import RunTables

BEFORE, AFTER, RELEASE = "evaluate-base", "evaluate-candidate", "release"
DECISION = "decision.json"  # what the release stage publishes
EVERYTHING = "all questions"


@dataclass(frozen=True)
class Accuracy:
    """Right answers of one model to one kind of question, with the interval over resampled questions."""

    questions: int
    right: int
    interval: Interval


@dataclass(frozen=True)
class Comparison:
    """One kind of question before and after.

    Attributes:
        level: 0 for all questions, 1 for a group, 2 for a task.
        chance: accuracy expected of guessing.
        control: accuracy of the tuned model that is shown no picture; None where that was not asked.
    """

    label: str
    level: int
    before: Accuracy | None
    after: Accuracy
    chance: float
    control: float | None


@dataclass(frozen=True)
class Tuning:
    """Before and after, and what the gate said; ``decision`` is None where nothing was released."""

    base: str
    candidate: str
    comparisons: tuple[Comparison, ...]
    unparsable: int
    decision: GateDecision | None


def tuning(tables: RunTables) -> Tuning | None:
    """Return what tuning changed; None where no tuned model answered anything."""
    after = _results(tables, AFTER, RESULTS)
    if after is None or not after.answers:
        return None
    before = _results(tables, BEFORE, RESULTS)
    control = _results(tables, AFTER, CONTROL)
    comparisons = []
    for label, level, tasks in _kinds(after.answers):
        scored = _accuracy(after.answers, tasks)
        blind = _accuracy(control.answers, tasks) if control else None
        assert scored is not None
        comparisons.append(
            Comparison(
                label,
                level,
                _accuracy(before.answers, tasks) if before else None,
                scored,
                float(np.mean([1 / answer.options for answer in after.answers if answer.task in tasks])),
                blind.interval.estimate if blind else None,
            )
        )
    return Tuning(
        base=before.model if before else "",
        candidate=after.model,
        comparisons=tuple(comparisons),
        unparsable=after.unparsable,
        decision=_decision(tables),
    )


def _results(tables: RunTables, stage: str, name: str) -> Results | None:
    ref = tables.refs.get(stage)
    if ref is None or name not in {file.name for file in load_manifest(tables.store, ref).files}:
        return None
    return read_results(tables.store, ref, name)


def _decision(tables: RunTables) -> GateDecision | None:
    ref = tables.refs.get(RELEASE)
    if ref is None:
        return None
    return GateDecision.model_validate_json(read_file(tables.store, ref, DECISION))


def _kinds(answers: Sequence[Answer]) -> list[tuple[str, int, frozenset[str]]]:
    """Return every row of the chart: all questions, then each group followed by its tasks."""
    group_of = {answer.task: answer.group for answer in answers}
    rows = [(EVERYTHING, 0, frozenset(group_of))]
    for group in sorted({group or "" for group in group_of.values()}):
        tasks = sorted(task for task, own in group_of.items() if (own or "") == group)
        if group:
            rows.append((group, 1, frozenset(tasks)))
        rows += [(task.replace("_", " "), 2, frozenset({task})) for task in tasks]
    return rows


def _accuracy(answers: Sequence[Answer], tasks: frozenset[str]) -> Accuracy | None:
    asked = [answer for answer in answers if answer.task in tasks]
    if not asked:
        return None
    right = [float(answer.right) for answer in asked]
    interval = mean_interval(right, clusters=[answer.video for answer in asked])
    return Accuracy(len(right), round(sum(right)), interval)
