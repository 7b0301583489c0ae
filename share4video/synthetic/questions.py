"""Multiple-choice questions in MVBench's form, from the facts of a clip or of its captions.

Static tasks can be answered from one frame, temporal ones cannot. Wording and candidates carry no hint:
answers are drawn evenly, events whose order follows from their names are not compared, and how many objects
move is asked only where one might stand still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from share4video.evaluation.questions import Question as BenchmarkQuestion
from share4video.synthetic.language import Change, Fact, clip_changes, first_facts
from share4video.synthetic.world import COLOURS, DIRECTIONS, SHAPES, Clip

TASK_GROUPS = {
    "colour": "static",
    "shape": "static",
    "count": "static",
    "direction": "temporal",
    "order": "temporal",
    "change": "temporal",
    "moving_count": "temporal",
}
COUNTS = ("none", "one", "two", "three")
SAMPLING_S = 2.0
ORDER_PAIRS = 3  # on order, of one clip's captions; of a clip itself one is asked
MIN_ORDER_GAP_S = 4.0  # events closer than two sampling intervals are not compared


@dataclass(frozen=True)
class Question:
    """``answer`` is the text of one of ``candidates``, as in MVBench."""

    task: str
    question: str
    candidates: tuple[str, ...]
    answer: str

    def turned(self, place: int) -> Question:
        """Return the question with the answer at ``place`` modulo the number of candidates."""
        others = [c for c in self.candidates if c != self.answer]
        at = place % len(self.candidates)
        return replace(self, candidates=(*others[:at], self.answer, *others[at:]))

    def benchmark(self) -> BenchmarkQuestion:
        """Return the question as the evaluation words it, about no file."""
        return BenchmarkQuestion(
            id="",
            task=self.task,
            video="",
            question=self.question,
            candidates=self.candidates,
            answer_index=self.candidates.index(self.answer),
        )


def questions_of_clip(clip: Clip, seed: int) -> list[Question]:
    """Questions whose answers are true of the clip and observable at 2 s sampling."""
    times = [float(t) for t in np.arange(0.0, clip.duration_s, SAMPLING_S)]
    changes = clip_changes(clip, times)
    return write_questions(first_facts(clip.state_at(0.0), 0.0), changes, seed)


def questions_of_facts(first: Sequence[Fact], later: Sequence[Sequence[Fact]], seed: int) -> list[Question]:
    """Questions over facts read from captions, each taken as observable."""
    sure = [[Change(fact, True) for fact in facts] for facts in later]
    return write_questions(first, sure, seed, pairs=ORDER_PAIRS)


def write_questions(
    first: Sequence[Fact], intervals: Sequence[Sequence[Change]], seed: int, pairs: int = 1
) -> list[Question]:
    """Write every question the facts support, but at most ``pairs`` on order; candidates in random order."""
    rng = np.random.default_rng([seed, 11])
    present = [fact.object for fact in first if fact.predicate == "present"]
    changes = [change for interval in intervals for change in interval]
    questions = _static(present) + _temporal(present, changes, rng, pairs)
    return [
        Question(q.task, q.question, tuple(str(c) for c in rng.permutation(list(q.candidates))), q.answer)
        for q in questions
    ]


def _static(present: Sequence[str]) -> list[Question]:
    questions = []
    for name in present:
        colour, shape = name.split(" ")
        questions.append(
            Question("colour", f"What colour is the {shape} at the start of the video?", COLOURS, colour)
        )
        questions.append(
            Question("shape", f"What shape is the {colour} object at the start of the video?", SHAPES, shape)
        )
    if 1 <= len(present) <= 2:
        count = "How many objects are there at the start of the video?"
        questions.append(Question("count", count, COUNTS[1:3], COUNTS[len(present)]))
    return questions


def _temporal(
    present: Sequence[str], changes: Sequence[Change], rng: np.random.Generator, pairs: int
) -> list[Question]:
    questions = []
    moves = [c for c in changes if c.fact.predicate == "moves"]
    for name in dict.fromkeys(c.fact.object for c in moves):
        earliest = next(c for c in moves if c.fact.object == name)
        if earliest.observable:
            text = f"In which direction does the {name} move first?"
            questions.append(Question("direction", text, tuple(DIRECTIONS), earliest.fact.value))
    turned = [c.fact for c in changes if c.fact.predicate == "turns_colour"]
    for fact in turned:
        once = sum(_shape(other) == _shape(fact) for other in turned) == 1
        if once and fact.object in present:
            others = tuple(colour for colour in COLOURS if colour != fact.object.split(" ")[0])
            text = f"Which colour does the {fact.object} turn?"
            questions.append(Question("change", text, others, fact.value))
    recoloured = {_shape(fact) for fact in turned}
    questions.extend(_order([c for c in moves if _shape(c.fact) not in recoloured], rng, pairs))
    movers = {_shape(c.fact) for c in moves}
    sure = all(any(c.observable for c in moves if _shape(c.fact) == shape) for shape in movers)
    if sure and len(present) == 2 and 1 <= len(movers) <= 2:  # of one object, seeing it would be enough
        text = "How many objects move during the video?"
        questions.append(Question("moving_count", text, COUNTS[1:3], COUNTS[len(movers)]))
    return questions


def _shape(fact: Fact) -> str:
    """The shape a fact is about: what stays the same about a body that changes colour."""
    return fact.object.split(" ")[-1]


def _order(moves: Sequence[Change], rng: np.random.Generator, pairs: int) -> list[Question]:
    """Questions on which of two movements comes first, where both are sure and far enough apart."""
    earliest: dict[tuple[str, str], Change] = {}
    for change in moves:
        earliest.setdefault((change.fact.object, change.fact.value), change)
    found = list(earliest.values())
    possible = [
        (one, two)
        for index, one in enumerate(found)
        for two in found[index + 1 :]
        if one.observable and two.observable and two.fact.time_s - one.fact.time_s >= MIN_ORDER_GAP_S
    ]
    questions = []
    for index in rng.permutation(len(possible))[:pairs]:
        texts = tuple(f"the {c.fact.object} moves {c.fact.value}" for c in possible[int(index)])
        questions.append(Question("order", "Which of these happens first?", texts, texts[0]))
    return questions
