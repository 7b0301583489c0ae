"""Whether a candidate is better than what is in service, from both models' answers to the same questions.

The rule: over all questions, the lower bound of the paired bootstrap interval of (candidate - reference) must
be above zero; a single task refuses only where even its upper bound is below minus the tolerance, which a
task about few clips cannot do by chance alone. Clips are resampled with all their questions, because what a
model makes of a clip decides several of its answers at once.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import BaseModel, ConfigDict

from share4video.config import GateConfig
from share4video.errors import UserError
from share4video.evaluation.bootstrap import Interval, paired_difference
from share4video.evaluation.results import Answer, Results


class Comparison(BaseModel):
    """Two models' accuracies over the questions both answered, and the interval of their difference."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    questions: int
    candidate: float
    reference: float
    difference: Interval


class GateDecision(BaseModel):
    """The outcome and all it rests on; a function of the two results and the configuration.

    Attributes:
        candidate, reference: the models, as name and revision.
        reasons: sentences; where the candidate is refused, each rule it broke.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    passed: bool
    candidate: str
    reference: str
    overall: Comparison
    tasks: dict[str, Comparison]
    reasons: tuple[str, ...]

    def sentence(self) -> str:
        """Return the decision as one paragraph."""
        return " ".join([f"The gate {'passes' if self.passed else 'refuses'} the candidate.", *self.reasons])


def decide(candidate: Results, reference: Results, config: GateConfig) -> GateDecision:
    """Compare a candidate with the model it would replace.

    Questions that either model got no answer to are left out of the comparison.

    Raises:
        UserError: the two were asked other questions, about other videos or under another protocol, or one of
            them is a text-only control.
    """
    _check_comparable(candidate, reference)
    theirs = reference.right_by_id()
    tasks: dict[str, list[Answer]] = {}
    for answer in sorted(candidate.answers, key=lambda answer: answer.question_id):
        if answer.question_id in theirs:
            tasks.setdefault(answer.task, []).append(answer)
    everything = [answer for answers in tasks.values() for answer in answers]
    if not everything:
        raise UserError(
            "no question was answered by both models",
            where=f"{candidate.model} and {reference.model}",
            fix="evaluate both on the same questions",
        )

    def compare(answers: list[Answer]) -> Comparison:
        left = np.array([answer.right for answer in answers], dtype=np.float64)
        right = np.array([theirs[answer.question_id] for answer in answers], dtype=np.float64)
        clips = [answer.video for answer in answers]
        difference = paired_difference(
            left,
            right,
            clusters=clips,
            samples=config.bootstrap_samples,
            confidence=config.confidence,
            seed=config.seed,
        )
        if len(set(clips)) < _fewest_clips(config.confidence):
            difference = difference.model_copy(update={"low": -1.0, "high": 1.0})
        return Comparison(
            questions=len(answers),
            candidate=float(left.mean()),
            reference=float(right.mean()),
            difference=difference,
        )

    overall = compare(everything)
    by_task = {task: compare(tasks[task]) for task in sorted(tasks)}
    refusals = _refusals(overall, by_task, config)
    return GateDecision(
        passed=not refusals,
        candidate=candidate.model,
        reference=reference.model,
        overall=overall,
        tasks=by_task,
        reasons=tuple(refusals) or (_praise(overall, config),),
    )


def _fewest_clips(confidence: float) -> int:
    """Return how many clips an interval needs: fewer may all favour one of two equal models by chance."""
    return math.ceil(math.log2(2 / (1 - confidence)))


def _check_comparable(candidate: Results, reference: Results) -> None:
    asked = ("protocol", "questions", "clips", "frames")
    differing = [name for name in asked if getattr(candidate, name) != getattr(reference, name)]
    if differing:
        raise UserError(
            f"the two evaluations differ in their {' and '.join(differing)}",
            where=f"{candidate.model} and {reference.model}",
            fix="evaluate both models on the same questions and clips",
        )
    if not (candidate.image and reference.image):
        raise UserError(
            "a text-only control is no evaluation of a model",
            where=f"{candidate.model} and {reference.model}",
            fix="give the evaluations with images",
        )


def _refusals(overall: Comparison, tasks: dict[str, Comparison], config: GateConfig) -> list[str]:
    reasons = []
    if overall.questions < config.min_questions:
        reasons.append(
            f"Only {overall.questions} questions were answered by both models, and the gate needs"
            f" {config.min_questions}."
        )
    if overall.difference.low <= 0:
        reasons.append(
            f"Over all {overall.questions} questions the candidate is right on {overall.candidate:.1%} and"
            f" the reference on {overall.reference:.1%}; the difference of {_points(overall.difference)} is"
            " not surely above zero."
        )
    for task, comparison in tasks.items():
        if comparison.difference.high < -config.task_tolerance:
            reasons.append(
                f"On the task {task} the candidate is surely worse: {comparison.candidate:.1%} against"
                f" {comparison.reference:.1%}, a difference of {_points(comparison.difference)} where"
                f" {-config.task_tolerance * 100:.1f} is allowed."
            )
    return reasons


def _praise(overall: Comparison, config: GateConfig) -> str:
    return (
        f"Over all {overall.questions} questions the candidate is right on {overall.candidate:.1%} and the"
        f" reference on {overall.reference:.1%}, a difference of {_points(overall.difference)} with"
        f" {config.confidence:.0%} confidence, and no task is surely worse by more than"
        f" {config.task_tolerance * 100:.1f} points."
    )


def _points(interval: Interval) -> str:
    low, high = interval.low * 100, interval.high * 100
    return f"{interval.estimate * 100:+.1f} points ({low:+.1f} to {high:+.1f})"
