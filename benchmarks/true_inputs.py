"""Roles of the captioner asked with perfect inputs: each is judged apart from the others' mistakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from share4video.captioning.client import ChatRequest, Completion
from share4video.captioning.engine import answer_all, connect
from share4video.captioning.roles import Difference, KeyFrame, Summary, TimedCaption, messages
from share4video.config import CaptionConfig, EngineSpec
from share4video.evaluation.captions import ClipFacts
from share4video.synthetic import language
from share4video.synthetic.world import Clip

LIMITS = CaptionConfig()
Requests = dict[str, Callable[[], ChatRequest]]


@dataclass(frozen=True)
class Subject:
    """A clip, its truth, and its key frames as the stage published them."""

    clip_id: str
    clip: Clip
    truth: Path
    frames: tuple[KeyFrame, ...]

    @property
    def changes(self) -> list[list[language.Change]]:
        """What is true of every pair of neighbouring key frames."""
        return language.clip_changes(self.clip, [frame.timestamp_s for frame in self.frames])

    @property
    def true_captions(self) -> list[TimedCaption]:
        """The caption a perfect observer would give every key frame."""
        first = language.first_caption(self.clip.state_at(self.frames[0].timestamp_s))
        texts = [first, *map(language.differential_caption, self.changes)]
        return [
            TimedCaption(frame.number, frame.timestamp_s, text)
            for frame, text in zip(self.frames, texts, strict=True)
        ]


def ask(spec: EngineSpec, requests: Sequence[Requests]) -> tuple[dict[str, str], int]:
    """Send all requests; return the answers' texts, and how many calls failed and say nothing."""
    everything = {name: build for part in requests for name, build in part.items()}
    with connect(spec) as endpoint:
        answers = answer_all(endpoint, everything)
    texts = {name: a.text.strip() for name, a in answers.items() if isinstance(a, Completion)}
    return texts, len(everything) - len(texts)


def differential_requests(subject: Subject, spec: EngineSpec) -> Requests:
    """Ask about every pair of key frames, given the true caption of the earlier one."""

    def build(number: int, before: str) -> Callable[[], ChatRequest]:
        given = Difference(subject.frames[number - 1], subject.frames[number], before)
        return lambda: ChatRequest(messages(spec.dialect, given), LIMITS.max_tokens_difference)

    captions = subject.true_captions
    return {
        _pair_name(subject, number): build(number, captions[number - 1].caption)
        for number in range(1, len(subject.frames))
    }


def differential_facts(subject: Subject, texts: Mapping[str, str]) -> ClipFacts:
    """Judge the captions of pairs against what each pair shows."""
    said = [
        fact
        for number, frame in enumerate(subject.frames[1:], start=1)
        for fact in language.parse(texts.get(_pair_name(subject, number), ""), frame.timestamp_s)
    ]
    return _judged(subject, said, [])


def _pair_name(subject: Subject, number: int) -> str:
    return f"{subject.clip_id}/{number}"


def summary_requests(subject: Subject, spec: EngineSpec) -> Requests:
    """Ask for the summary of the true differential captions."""
    given = Summary(tuple(subject.true_captions))
    return {subject.clip_id: lambda: ChatRequest(messages(spec.dialect, given), LIMITS.max_tokens_summary)}


def summary_facts(subject: Subject, texts: Mapping[str, str]) -> ClipFacts:
    """Judge a summary against the captions it was made from."""
    first = subject.frames[0].timestamp_s
    given = language.first_facts(subject.clip.state_at(first), first)
    return _judged(subject, language.parse_summary(texts.get(subject.clip_id, "")), given)


def _judged(subject: Subject, said: Sequence[language.Fact], given: Sequence[language.Fact]) -> ClipFacts:
    changes = [change for pair in subject.changes for change in pair]
    sure = [change.fact for change in changes if change.observable]
    doubtful = [change.fact for change in changes if not change.observable]
    return ClipFacts(subject.clip_id, tuple(said), (*given, *sure), tuple(doubtful))
