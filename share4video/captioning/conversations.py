"""A clip's captioning as a conversation: steps become prompts, answers become checked captions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from share4video.captioning.checks import EMPTY, CheckContext, failed_checks, without_markup
from share4video.captioning.client import CallError, ChatRequest, Completion, Outcome
from share4video.captioning.differential import ATTEMPTS, Caption, Chain, ChainRules, Failure, Step
from share4video.captioning.roles import (
    Brief,
    Difference,
    Fast,
    First,
    KeyFrame,
    Part,
    RoleInput,
    Summary,
    Window,
    Wording,
    leaks,
    messages,
)
from share4video.captioning.scheduler import Call
from share4video.captioning.step_context import context_of
from share4video.captioning.steps import without_digest
from share4video.config import CaptionConfig, ChecksConfig, EngineSpec

CAPTIONER, SUMMARIZER = "captioner", "summarizer"

# How a caption that failed its checks is asked for again: otherwise a greedy engine would repeat itself. An
# engine that decodes greedily whatever it is asked still honours the penalty, and then stays reproducible.
RETRY_TEMPERATURE = 0.7
RETRY_FREQUENCY_PENALTY = 0.3


@dataclass(frozen=True)
class CaptionPlan:
    """How clips are captioned, and in which prompts.

    Attributes:
        cut_threshold: a key frame less similar than this to the one before begins a scene; None: none does.
    """

    rules: ChainRules
    captioner_dialect: Wording
    summarizer_dialect: Wording
    max_tokens_frame: int
    max_tokens_whole: int
    cut_threshold: float | None = None
    checks: ChecksConfig = field(default_factory=ChecksConfig)

    def is_cut(self, frame: KeyFrame) -> bool:
        """Whether a scene begins with a key frame."""
        bound = self.cut_threshold
        return bound is not None and frame.similarity is not None and frame.similarity < bound

    @classmethod
    def of(
        cls,
        config: CaptionConfig,
        captioner: EngineSpec,
        summarizer: EngineSpec | None,
        *,
        cut_threshold: float | None = None,
    ) -> CaptionPlan:
        """Read the plan from a stage's configuration; the captioner summarises where nobody else does."""
        anchors = config.mode == "anchors"
        return cls(
            rules=ChainRules(
                anchor_every_frames=config.anchor_every_frames if anchors else None,
                anchor_every_s=config.anchor_every_s if anchors else None,
                max_fallback_share=config.max_fallback_share,
                fast=config.fast,
                window=config.window,
                memory=config.memory,
                summary_budget_tokens=config.summary_budget_tokens,
            ),
            cut_threshold=cut_threshold if anchors else None,
            captioner_dialect=captioner.wording,
            summarizer_dialect=(summarizer or captioner).wording,
            max_tokens_frame=config.max_tokens_difference,
            max_tokens_whole=config.max_tokens_summary,
            checks=config.checks,
        )


class FrameText(Protocol):
    """Compares captions with frames."""

    def scorer(self, frames: Sequence[bytes]) -> Callable[[int, str], float]:
        """Return what scores a caption against one of ``frames`` (image files), given by its index.

        Both it and what it returns are called in threads.
        """
        ...


class ClipConversation:
    """The differential captions, summary and, where asked for, fast caption of one clip.

    Without ``frames`` it is of a clip whose key frames are still to come: `extend` it, then `close` it.

    Args:
        clip_id: seeds what is sampled, so that equal clips get equal captions.
        frames: the key frames in order of time.
        frame_text: scores the captions of single frames, where that is wanted.
    """

    def __init__(
        self,
        clip_id: str,
        frames: Sequence[KeyFrame] | None,
        plan: CaptionPlan,
        frame_text: FrameText | None = None,
    ) -> None:
        self.clip_id, self.plan = clip_id, plan
        self._frames = dict(enumerate(frames or ()))  # those that are still needed, by index
        self._known = len(self._frames)
        self._score = frame_text.scorer([frame.image for frame in frames or ()]) if frame_text else None
        if frames is None:
            self.chain = Chain.growing(plan.rules)
        else:
            cuts = [plan.is_cut(frame) for frame in frames]
            self.chain = Chain([frame.timestamp_s for frame in frames], plan.rules, cuts=cuts)

    def extend(self, frame: KeyFrame) -> None:
        """Add the next key frame."""
        self._frames[self._known] = frame
        self._known += 1
        self.chain.extend(frame.timestamp_s, self.plan.is_cut(frame))

    def close(self) -> None:
        """Say that there are no more key frames."""
        self.chain.close()

    @property
    def calls_left(self) -> int:
        return self.chain.steps_left

    def next(self) -> Call | None:
        step = self.chain.next()
        if step is None:
            if self.chain.closed:
                self._frames.clear()  # pictures are not kept longer than they are needed
            return None
        engine = SUMMARIZER if _is_of_text(step) else CAPTIONER
        weighed = self._score is not None and step.frame >= 0
        return Call(step.key, engine, partial(self._request, step), weighed)

    def take(self, call: Call, outcome: Outcome) -> None:
        step = self.chain.next()
        assert step is not None
        assert step.key == call.key
        context = context_of(step, self._span_s(step), self._known, self._dialect(step), self.plan.checks)
        if self._score is not None and step.frame >= 0 and isinstance(outcome, Completion):
            score = self._score(step.frame, without_markup(outcome.text))
            context = replace(context, frame_text_score=score)
        self.chain.take(step, held_against(context, outcome, step.attempt))
        for index in [index for index in self._frames if index < self.chain.oldest_frame]:
            del self._frames[index]

    def _span_s(self, step: Step) -> tuple[float, float]:
        """Return from when to when the answer to a step may tell."""
        if step.part is not None:
            return step.part.start_s, step.part.end_s
        if step.frame < 0:
            return self.chain.start_s, self.chain.end_s
        first = {"difference": step.frame - 1, "window": step.since}.get(step.kind, step.frame)
        return self._frames[first].timestamp_s, self._frames[step.frame].timestamp_s

    def _dialect(self, step: Step) -> Wording:
        return self.plan.summarizer_dialect if _is_of_text(step) else self.plan.captioner_dialect

    def _request(self, step: Step) -> ChatRequest:
        whole = step.kind in ("part", "summary", "fast")
        max_tokens = self.plan.max_tokens_whole if whole else self.plan.max_tokens_frame
        given = messages(self._dialect(step), self._role_input(step))
        return varied(
            ChatRequest(given, max_tokens), step.attempt, f"{self.clip_id}/{without_digest(step.key)}"
        )

    def _role_input(self, step: Step) -> RoleInput:
        match step.kind:
            case "first" | "anchor":
                return First(self._frames[step.frame])
            case "difference":
                return Difference(self._frames[step.frame - 1], self._frames[step.frame], step.before)
            case "window":
                shown = (self._frames[index] for index in range(step.since, step.frame + 1))
                return Window(tuple(shown), step.before)
            case "part":
                return Part(step.captions)
            case "summary":
                return Summary(step.captions)
            case "fast":
                return Fast(tuple(self._frames.values()))


class BriefConversation:
    """One sentence about a clip, asked for once more where the first answer fails its checks."""

    def __init__(
        self,
        clip_id: str,
        frames: Sequence[KeyFrame],
        dialect: Wording,
        max_tokens: int,
        checks: ChecksConfig | None = None,
    ) -> None:
        self.result: Caption | Failure | None = None
        self._clip_id, self._frames = clip_id, tuple(frames)
        self._dialect: Wording = dialect
        self._checks = checks
        self._max_tokens, self._attempt = max_tokens, 0

    @property
    def calls_left(self) -> int:
        return int(self.result is None)

    def next(self) -> Call | None:
        if self.result is not None:
            self._frames = ()
            return None
        return Call(f"brief-{self._attempt}", CAPTIONER, self._request)

    def take(self, call: Call, outcome: Outcome) -> None:
        caption = checked(outcome, self._dialect, self._attempt, self._checks)
        if isinstance(caption, Caption) and caption.failed:
            self._attempt += 1
            if self._attempt < ATTEMPTS:
                return
            if EMPTY in caption.failed:
                caption = Failure("the engine's answer was empty")
        self.result = caption

    def _request(self) -> ChatRequest:
        request = ChatRequest(messages(self._dialect, Brief(self._frames)), self._max_tokens)
        return varied(request, self._attempt, f"{self._clip_id}/brief")


def _is_of_text(step: Step) -> bool:
    return step.kind in ("part", "summary")


def checked(
    outcome: Outcome, dialect: Wording, attempt: int = 0, checks: ChecksConfig | None = None
) -> Caption | Failure:
    """Turn an answer into a caption, of which no more is known than who was asked."""
    return held_against(CheckContext(checks or ChecksConfig(), leaks(dialect)), outcome, attempt)


def held_against(context: CheckContext, outcome: Outcome, attempt: int = 0) -> Caption | Failure:
    """Turn an answer into a caption and the checks it failed; of a failed call keep what may be published."""
    if isinstance(outcome, CallError):
        return Failure(outcome.sentence)
    assert isinstance(outcome, Completion)
    failed = failed_checks(outcome.text, truncated=outcome.truncated, context=context)
    return Caption(
        without_markup(outcome.text),
        outcome.completion_tokens,
        failed,
        outcome.prompt_tokens,
        attempt,
        context.frame_text_score,
    )


def varied(request: ChatRequest, attempt: int, name: str) -> ChatRequest:
    """Return the request of an attempt: greedy at first, then sampled with a seed made from ``name``."""
    if attempt == 0:
        return request
    seed = int.from_bytes(hashlib.sha256(f"{name}#{attempt}".encode()).digest()[:4], "big") >> 1
    return replace(
        request, temperature=RETRY_TEMPERATURE, seed=seed, frequency_penalty=RETRY_FREQUENCY_PENALTY
    )
