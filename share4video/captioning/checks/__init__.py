"""What is wrong with a caption, as far as it can be told from the text.

A caption that fails is asked for once more and then flagged; see `share4video.captioning.differential`. Every
check has a code and can be turned off in `share4video.config.ChecksConfig`; only an empty caption always
fails. The rules are made to be right when they speak: they say nothing of most wrong captions.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field

from share4video.captioning.checks import consistency, form, language, times
from share4video.captioning.checks.form import loops, without_markup
from share4video.config import ChecksConfig

__all__ = [
    "CONTRADICTION",
    "EMPTY",
    "FRAME_NUMBER",
    "FRAME_TEXT",
    "LANGUAGE",
    "PROMPT_LEAK",
    "REFUSAL",
    "REPEATED_NGRAMS",
    "REPETITION",
    "SUMMARY_CONTRADICTION",
    "TIME_OUT_OF_RANGE",
    "TRUNCATED",
    "UNSUPPORTED_QUOTE",
    "CheckContext",
    "failed_checks",
    "loops",
    "without_markup",
]

EMPTY, TRUNCATED, REPETITION, PROMPT_LEAK = "empty", "truncated", "repetition", "prompt_leak"
REPEATED_NGRAMS, REFUSAL, LANGUAGE = "repeated_ngrams", "refusal", "language"
TIME_OUT_OF_RANGE, FRAME_NUMBER = "time_out_of_range", "frame_number"
CONTRADICTION, SUMMARY_CONTRADICTION = "contradiction", "summary_contradiction"
UNSUPPORTED_QUOTE, FRAME_TEXT = "unsupported_quote", "frame_text"
_MAX_CHARACTERS = 20_000


@dataclass(frozen=True)
class CheckContext:
    """What a caption is held against; what is not known is not checked.

    Attributes:
        leaks: phrases that only the prompt would say (`roles.leaks`).
        span_s: the times the caption is about, in seconds of the video.
        frames: numbers by which it may call frames.
        before: the caption of the key frame before, for a difference.
        notes: the captions that a summary was made from.
        frame_text_score: how well the caption fits its frame, where it was measured.
    """

    config: ChecksConfig = field(default_factory=ChecksConfig)
    leaks: tuple[str, ...] = ()
    span_s: tuple[float, float] | None = None
    frames: Set[int] = frozenset()
    before: str = ""
    notes: tuple[str, ...] = ()
    frame_text_score: float | None = None


Check = Callable[[str, CheckContext], bool]


def failed_checks(text: str, *, truncated: bool, context: CheckContext | None = None) -> tuple[str, ...]:
    """Return the codes of the checks a caption fails, in alphabetical order.

    Args:
        text: the engine's answer as it came; no more than its first 20,000 characters are looked at.
        truncated: whether the engine stopped at the token limit.
        context: by default nothing is known but the default settings.
    """
    context = context or CheckContext()
    off, read = context.config.off, text[:_MAX_CHARACTERS]
    failed = {code for code, fails in _CHECKS.items() if code not in off and fails(read, context)}
    if not without_markup(text):
        failed.add(EMPTY)
    if truncated and TRUNCATED not in off:
        failed.add(TRUNCATED)
    return tuple(sorted(failed))


def _repeats(text: str, context: CheckContext) -> bool:
    return form.repeated_share(text) > context.config.max_repeated_share


def _foreign(text: str, context: CheckContext) -> bool:
    asked = context.config.language
    return asked is not None and language.foreign(text, asked, context.config.max_foreign_share)


def _out_of_range(text: str, context: CheckContext) -> bool:
    slack_s = context.config.time_slack_s
    return context.span_s is not None and times.out_of_span(text, *context.span_s, slack_s)


def _contradicts(text: str, context: CheckContext) -> bool:
    if context.span_s is None or context.notes:
        return False
    return consistency.contradicts_itself(text) or consistency.goes_on_after_its_end(text, context.before)


def _misfit(_: str, context: CheckContext) -> bool:
    score, bound = context.frame_text_score, context.config.min_frame_text_score
    return score is not None and bound is not None and score < bound


_CHECKS: dict[str, Check] = {
    REPETITION: lambda text, _: loops(text),
    REPEATED_NGRAMS: _repeats,
    PROMPT_LEAK: lambda text, context: form.leaked(text, context.leaks),
    REFUSAL: lambda text, _: form.refuses(text),
    LANGUAGE: _foreign,
    TIME_OUT_OF_RANGE: _out_of_range,
    FRAME_NUMBER: lambda text, c: bool(c.frames) and times.unknown_frames(text, c.frames),
    CONTRADICTION: _contradicts,
    SUMMARY_CONTRADICTION: lambda text, c: bool(c.notes) and consistency.contradicts_notes(text, c.notes),
    UNSUPPORTED_QUOTE: lambda text, c: bool(c.notes) and consistency.quotes_nobody(text, c.notes),
    FRAME_TEXT: _misfit,
}
