"""The answers of one model to one set of questions, as they are published and compared."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from share4video.dataset.manifest import StageRef, canonical_json
from share4video.dataset.shards import read_file
from share4video.errors import UserError
from share4video.store import Store

PROTOCOL = "mvbench-grid-1"  # prompts, frame rule and answer rule; answers of two protocols do not compare
RESULTS, CONTROL = "results.json", "control.json"  # the files an evaluation publishes
_FORMAT = 2  # of those files; what is on record in an older one is not read again

_BENCHMARK_DIGITS = 16

FailureReason = Literal["unreadable_video", "engine_error"]


class Answer(BaseModel):
    """What the model said to a question.

    Attributes:
        video: as the question names it; answers about one video are no independent evidence.
        group: ``static`` or ``temporal`` for the synthetic tasks, else None.
        options: how many candidates there were.
        text: the reply with the pre-filled bracket in front, as it was parsed.
        letter: the candidate it names; None where it names none or several (counted as wrong and unparsable).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    question_id: str
    task: str
    video: str
    group: str | None
    options: int
    text: str
    letter: str | None
    answer: str
    right: bool


class Failure(BaseModel):
    """A question that got no answer, which says nothing about the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    question_id: str
    task: str
    reason: FailureReason


class Results(BaseModel):
    """``results.json``: answers and failures in order of question id.

    Attributes:
        model: model and revision, never an address.
        questions: hash of the questions that were asked.
        clips: hash of the videos they were asked about.
        frames: how many of each were shown.
        image: False for the text-only control.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    protocol: str
    model: str
    questions: str
    clips: str
    frames: int
    image: bool
    answers: tuple[Answer, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def benchmark(self) -> str:
        """Name what was asked: results of one benchmark compare question by question."""
        asked = [_FORMAT, self.protocol, self.questions, self.clips, self.frames]
        return hashlib.sha256(canonical_json(asked)).hexdigest()[:_BENCHMARK_DIGITS]

    @property
    def accuracy(self) -> float:
        """Share of right answers over all tasks (micro average); failures are left out."""
        return _accuracy(self.answers)

    @property
    def unparsable(self) -> int:
        return sum(answer.letter is None for answer in self.answers)

    def by_task(self) -> dict[str, float]:
        """Return the accuracy of each task."""
        return _accuracies(self.answers, lambda answer: answer.task)

    def by_group(self) -> dict[str, float]:
        """Return the accuracy over all questions of each group; empty where tasks have no groups."""
        return _accuracies((a for a in self.answers if a.group), lambda answer: answer.group or "")

    def chance(self, group: str | None = None) -> float:
        """Return the accuracy expected of guessing, over all questions or those of a group."""
        shares = [1 / answer.options for answer in self.answers if group is None or answer.group == group]
        return sum(shares) / len(shares) if shares else 0.0

    def right_by_id(self) -> dict[str, bool]:
        """Return for each answered question whether it was answered right."""
        return {answer.question_id: answer.right for answer in self.answers}

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Return the numbers a stage reports: accuracies, what guessing would give, and what went wrong."""
        numbers = {"accuracy": self.accuracy, "chance": self.chance()}
        for group, value in self.by_group().items():
            numbers |= {f"accuracy_{group}": value, f"chance_{group}": self.chance(group)}
        numbers |= {f"accuracy_task_{task}": value for task, value in self.by_task().items()}
        numbers |= {"unparsable": float(self.unparsable), "unanswered": float(len(self.failures))}
        return {prefix + name: value for name, value in numbers.items()}


def read_results(store: Store, ref: StageRef, name: str = RESULTS) -> Results:
    """Return what an evaluation published.

    Raises:
        UserError: it is missing, changed or damaged, of another version, or the output is no evaluation.
    """
    try:
        return Results.model_validate_json(read_file(store, ref, name))
    except KeyError:
        raise UserError(
            f"the output holds no {name}", where=str(ref), fix="name an output of evaluate"
        ) from None
    except ValidationError as error:
        raise UserError(
            f"{name} was written by another version", where=str(ref), fix="evaluate the model again"
        ) from error


def _accuracy(answers: Iterable[Answer]) -> float:
    right = [answer.right for answer in answers]
    return sum(right) / len(right) if right else 0.0


def _accuracies(answers: Iterable[Answer], name: Callable[[Answer], str]) -> dict[str, float]:
    groups: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        groups[name(answer)].append(answer)
    return {key: _accuracy(groups[key]) for key in sorted(groups)}
