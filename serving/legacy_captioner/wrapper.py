"""The chat tokens the model was trained on, as the release's own demo puts them around a question."""

from __future__ import annotations

from collections.abc import Sequence

TURN, END = "[UNUSED_TOKEN_146]", "[UNUSED_TOKEN_145]"
STOPS = (END, "<|im_end|>", "</s>")  # the last is the tokenizer's own end of a text
SPECIAL = (TURN, *STOPS, "<|im_start|>", "<ImageHere>")


def wrapped(turns: Sequence[tuple[str, str]]) -> str:
    """Return a conversation as the model's prompt, up to where it answers.

    The demo asks one question without anything before it. Further turns are wrapped the same way.

    Args:
        turns: (role, text), the last one of the user.
    """
    said = "".join(f"{TURN}{role}\n{text}{END}\n" for role, text in turns)
    return f"{said}{TURN}assistant\n"


def answer_in(text: str) -> tuple[str, bool]:
    """Return the answer in what the model wrote, and whether it came to an end of its own."""
    ends = [place for stop in STOPS if (place := text.find(stop)) >= 0]
    return text[: min(ends, default=len(text))].strip(), bool(ends)
