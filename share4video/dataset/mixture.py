"""Training samples for the chat model, made from our captions.

A clip becomes one frame grid and several conversations about it: a request to describe it, answered by the
summary, and questions that a `QuestionWriter` derives from the differential captions. This module decides
what the samples say; the mixture stage renders the grids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from share4video.chat import grid_question
from share4video.dataset.messages import IMAGE_MARK, Message, encode_messages

DESCRIBE_REQUEST = "Describe this video in detail."
CAPTION_SOURCE = "caption"
QUESTION_SOURCE = "question"  # followed by :task


@dataclass(frozen=True)
class TimedCaption:
    """A differential caption and the span it speaks of, in seconds."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class ClipCaptions:
    """What our captioner said about one clip; ``differentials`` are in time order."""

    clip_id: str
    differentials: tuple[TimedCaption, ...]
    summary: str


@dataclass(frozen=True)
class QA:
    """One question and its answer, worded exactly as the model will be asked.

    Attributes:
        task: what is asked for, such as ``moving_direction``; samples are counted by it.
        system: the system text; empty leaves it to the model's chat template.
        question: the user turn after the image mark.
        answer: the whole assistant turn, such as ``Best option:(B) red``.
    """

    task: str
    system: str
    question: str
    answer: str


class QuestionWriter(Protocol):
    """Derives questions from captions. Equal captions must give equal questions.

    ``version`` names the writer and its revision: it is part of what a mixture's identity is.
    """

    version: str

    def __call__(self, differentials: Sequence[TimedCaption], summary: str) -> list[QA]: ...


@dataclass(frozen=True)
class Sample:
    """One conversation about one clip's grid. ``source`` is ``caption`` or ``question:<task>``."""

    sample_id: str
    clip_id: str
    messages: tuple[Message, ...]
    source: str


def derangement(size: int, seed: int) -> list[int]:
    """Return a seeded permutation of ``range(size)`` that leaves nothing in its place (Sattolo's algorithm).

    Raises:
        ValueError: there are fewer than two things to permute.
    """
    if size < 2:
        raise ValueError("a derangement needs at least two things")
    order = list(range(size))
    random = np.random.default_rng(seed)
    for last in range(size - 1, 0, -1):
        other = int(random.integers(last))  # never last itself: the result is a single cycle
        order[last], order[other] = order[other], order[last]
    return order


def shuffle_captions(clips: Sequence[ClipCaptions], seed: int) -> list[ClipCaptions]:
    """Give every clip another clip's captions: the control that shows what the captions are worth."""
    order = derangement(len(clips), seed)
    return [replace(clips[other], clip_id=clip.clip_id) for clip, other in zip(clips, order, strict=True)]


def caption_sample(clip: ClipCaptions, request: str = "") -> Sample:
    """Return the sample that asks for a description and answers with the summary.

    Args:
        request: how it is asked for; empty asks as about a frame grid.
    """
    asked = request or grid_question(DESCRIBE_REQUEST)
    return _sample(clip.clip_id, CAPTION_SOURCE, "", asked, clip.summary)


def question_samples(clip: ClipCaptions, writer: QuestionWriter) -> list[Sample]:
    """Return one sample per question the writer finds in the clip's captions, each once."""
    found = {}
    for qa in writer(clip.differentials, clip.summary):
        sample = _sample(clip.clip_id, f"{QUESTION_SOURCE}:{qa.task}", qa.system, qa.question, qa.answer)
        found[sample.sample_id] = sample
    return list(found.values())


def select(samples: Sequence[Sample], *, max_samples: int, caption_share: float, seed: int) -> list[Sample]:
    """Return at most ``max_samples`` samples, in their order.

    ``caption_share`` of them ask for a description; where one kind runs short the other fills its place.
    Which samples go depends on ``seed`` and on what they say alone, so a sample that is added elsewhere
    changes few of the choices.
    """
    if len(samples) <= max_samples:
        return list(samples)
    captions = [sample for sample in samples if sample.source == CAPTION_SOURCE]
    questions = [sample for sample in samples if sample.source != CAPTION_SOURCE]
    captions_kept = min(len(captions), round(max_samples * caption_share))
    questions_kept = min(len(questions), max_samples - captions_kept)
    captions_kept = min(len(captions), max_samples - questions_kept)

    def first(pool: list[Sample], count: int) -> list[str]:
        return [s.sample_id for s in sorted(pool, key=lambda s: _digest(str(seed), s.sample_id))[:count]]

    chosen = {*first(captions, captions_kept), *first(questions, questions_kept)}
    return [sample for sample in samples if sample.sample_id in chosen]


def _sample(clip_id: str, source: str, system: str, question: str, answer: str) -> Sample:
    messages = (
        *([Message("system", system)] if system else []),
        Message("user", f"{IMAGE_MARK}\n{question}"),
        Message("assistant", answer),
    )
    return Sample(_digest(clip_id, encode_messages(messages))[:20], clip_id, messages, source)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
