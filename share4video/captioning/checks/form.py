"""Captions whose very form is wrong: loops, repeats, control tokens, words of the prompt, refusals."""

from __future__ import annotations

import re
from collections.abc import Iterable

from share4video.captioning.quoted import without_quotes

_LONGEST_PERIOD = 48  # words; a loop longer than this is cut by the token limit first
_MAX_WORDS = 4096
_RUN_WORDS = 8
_FEWEST_RUNS = 24  # of a text with fewer, a share says little
# Control tokens of chat templates: ours, InternLM-XComposer's, Llama's.
_MARKUP = re.compile(r"<\|[^<>|]*\|>|<\||\|>|<image>|\[UNUSED_TOKEN_\d+\]|\[/?INST\]|</?s>")

_CANNOT = r"(?:can(?:no|')t|can not|am (?:not able|unable) to|'m (?:not able|unable) to|won't be able to)"
_REFUSALS = re.compile(
    "|".join(
        (
            r"\bI(?:'m| am) sorry,? but\b.{0,40}\bI(?: |'m| am)",
            rf"\bsorry,? (?:but )?I {_CANNOT}\b",
            rf"\bI ?{_CANNOT} (?:assist|help|provide|describe|view|see|access|process|analy[sz]e|watch|"
            r"comply|fulfil|continue|identify (?:the |any )?(?:people|person|individual)|generate|create)\b",
            r"\bas an? (?:AI|artificial intelligence)(?: (?:language )?model| assistant| system)?(?:,| I\b)",
            r"\bas a (?:large )?language model\b",
            r"\bI(?: do not|'m not| am not| don't) (?:have the (?:ability|capability) to|capable of)",
            r"\bno (?:images?|frames?|videos?|pictures?) (?:was|were|has been|have been) "
            r"(?:provided|attached|uploaded|given|shared)\b",
            r"\bplease (?:provide|upload|share|attach) (?:the|an?|your|more) "
            r"(?:images?|frames?|videos?|pictures?)\b",
            r"\b(?:against|violates?) (?:my|our|the) (?:content )?(?:guidelines|polic(?:y|ies))\b",
        )
    ),
    re.IGNORECASE,
)


def without_markup(text: str) -> str:
    """Return the text without a model's control tokens, which in the next prompt would be obeyed."""
    return _MARKUP.sub("", text).strip()


def leaked(text: str, leaks: Iterable[str]) -> bool:
    """Whether control tokens are in the text, or phrases that only the prompt would say."""
    folded = text.casefold()
    return bool(_MARKUP.search(text)) or any(phrase.casefold() in folded for phrase in leaks)


def refuses(text: str) -> bool:
    """Whether the model speaks of itself and of what it cannot do, in place of the video."""
    return bool(_REFUSALS.search(without_quotes(text).replace("\u2019", "'")))


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


def repeated_share(text: str) -> float:
    """Return the share of the text's runs of eight words that stand in it before; 0 for a short text.

    Eight words are more than a sentence about a simple event has: "the man walks to the left" may come again,
    word for word the same account of something may not.
    """
    words = text.casefold().split()[:_MAX_WORDS]
    runs = [tuple(words[start : start + _RUN_WORDS]) for start in range(len(words) - _RUN_WORDS + 1)]
    return 1 - len(set(runs)) / len(runs) if len(runs) >= _FEWEST_RUNS else 0.0
