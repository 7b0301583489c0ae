"""Questions and answers about a synthetic clip, written from its captions alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from share4video.chat import grid_question
from share4video.dataset.mixture import QA, TimedCaption
from share4video.evaluation.mvbench import SYSTEM, question_block, right_reply
from share4video.synthetic import language
from share4video.synthetic.questions import Question, questions_of_facts

VIEWS = 3  # how often a question is asked, each time with its candidates in another order


def questions_of_captions(differentials: Sequence[TimedCaption], seed: int) -> list[Question]:
    """Write the questions that differential captions support.

    What the captions got wrong, the questions get wrong: nothing but the captions is read.
    """
    if not differentials:
        return []
    first, *later = differentials
    intervals = [language.parse(caption.text, caption.end_s) for caption in later]
    return questions_of_facts(language.parse(first.text, first.end_s), intervals, seed)


class SyntheticQuestionWriter:
    """Multiple-choice questions with the very prompt and pre-filled answer the evaluation uses."""

    version = "synthetic-2"

    def __call__(self, differentials: Sequence[TimedCaption], summary: str) -> list[QA]:
        """Write the clip's questions; the letters of the answers depend on the captions alone."""
        digest = hashlib.sha256("\n".join(caption.text for caption in differentials).encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        asked = []
        for number, question in enumerate(questions_of_captions(differentials, seed)):
            for view in range(min(VIEWS, len(question.candidates))):
                asked.append(_worded(question.turned(seed + number + view)))
        return asked


def _worded(question: Question) -> QA:
    asked = question.benchmark()
    return QA(question.task, SYSTEM, grid_question(question_block(asked)), right_reply(asked))
