"""What is wrong with a caption, as far as it can be told from the text.

A caption that fails is asked for once more and then flagged; see `share4video.captioning.differential`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

EMPTY, TRUNCATED, REPETITION, PROMPT_LEAK = "empty", "truncated", "repetition", "prompt_leak"

_LONGEST_PERIOD = 48  # words; a loop longer than this is cut by the token limit first
_MAX_WORDS = 4096
# Control tokens of chat templates: ours, InternLM-XComposer's, Llama's.
_MARKUP = re.compile(r"<\|[^<>|]*\|>|<\||\|>|<image>|\[UNUSED_TOKEN_\d+\]|\[/?INST\]|</?s>")


def failed_checks(text: str, *, truncated: bool, leaks: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the codes of the checks a caption fails, in alphabetical order.

    Args:
        truncated: whether the engine stopped at the token limit.
        leaks: phrases that only the prompt would say (`roles.leaks`).
    """
    failed = set()
    if not text.strip():
        failed.add(EMPTY)
    if truncated:
        failed.add(TRUNCATED)
    if loops(text):
        failed.add(REPETITION)
    folded = text.casefold()
    if _MARKUP.search(text) or any(phrase.casefold() in folded for phrase in leaks):
        failed.add(PROMPT_LEAK)
    return tuple(sorted(failed))


def without_markup(text: str) -> str:
    """Return the text without a model's control tokens, which in the next prompt would be obeyed."""
    return _MARKUP.sub("", text).strip()


def loops(text: str) -> bool:
    """Whether a run of words comes several times on end, as when greedy decoding is caught in a loop.

    Three times for a run of four words or more, four times for two or three, six times for one. Words that
    recur with others between them are no loop: captions of similar events are similar.
    """
    words = text.casefold().split()[:_MAX_WORDS]
    for period in range(1, min(_LONGEST_PERIOD, len(words) // 2) + 1):
        times = 6 if period == 1 else 4 if period < 4 else 3
        run = 0
        for earlier, later in zip(words, words[period:], strict=False):
            run = run + 1 if earlier == later else 0
            if run >= period * (times - 1):
                return True
    return False
