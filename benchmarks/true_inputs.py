"""Roles of the captioner asked with perfect inputs: each is judged apart from the others' mistakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from share4video.captioning.client import ChatRequest, Completion
from share4video.captioning.engine import answer_all, connect
from share4video.captioning.roles import Difference, KeyFrame, Summary, TimedCaption, messages
from share4video.config import CaptionConfig, EngineSpec
from share4video.synthetic import language
from share4video.synthetic.caption_scores import JudgedClip, KnownFacts
from share4video.synthetic.known_facts import KnownFact, known_changes, unseen_blinks
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
    def times_s(self) -> list[float]:
        """When the key frames are."""
        return [frame.timestamp_s for frame in self.frames]

    @property
    def true_captions(self) -> list[TimedCaption]:
        """The caption a perfect observer would give every key frame."""
        first = language.first_caption(self.clip.state_at(self.frames[0].timestamp_s))
        changes = language.clip_changes(self.clip, self.times_s)
        texts = [first, *map(language.differential_caption, changes)]
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


def differential_facts(subject: Subject, texts: Mapping[str, str]) -> JudgedClip:
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


def summary_facts(subject: Subject, texts: Mapping[str, str]) -> JudgedClip:
    """Judge a summary against the captions it was made from."""
    first = subject.frames[0].timestamp_s
    given = language.first_facts(subject.clip.state_at(first), first)
    return _judged(subject, language.parse_summary(texts.get(subject.clip_id, "")), given)


def _judged(subject: Subject, said: Sequence[language.Fact], given: Sequence[language.Fact]) -> JudgedClip:
    """Judge what was said against what pairs of neighbouring key frames show and what was ``given``."""
    known = [KnownFact(fact, observable=True, short=False) for fact in given]
    known += [change for pair in known_changes(subject.clip, subject.times_s) for change in pair]
    known += unseen_blinks(subject.clip, subject.times_s)
    return JudgedClip.of(subject.clip_id, said, KnownFacts.of(known))
