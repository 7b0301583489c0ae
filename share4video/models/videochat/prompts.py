"""VideoChat's words: what stands around a video when the model is asked, and when it is trained.

Every text comes as what stands before the visual tokens and what stands after them, because the two are
tokenized apart, as in the released code. Chat and training differ in their white space there, and so here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from share4video.dataset.formats.videochat import QA
from share4video.models.chat_session import VisualKind

STOP = "###"
_TAG = {"video": "Video", "image": "Image"}

# What stage 1 asks for; one is drawn for every caption. The released list for videos.
VIDEO_REQUESTS = (
    "Describe the following video concisely.",
    "Provide a brief description of the given video clip.",
    "Offer a succinct explanation of the footage presented.",
    "Summarize the visual content of the following video.",
    "Give a short and clear explanation of the subsequent video clip.",
    "Share a concise interpretation of the video provided.",
    "Present a compact description of the clip's key features.",
    "Relay a brief, clear account of the video shown.",
    "Render a clear and concise summary of the video below.",
    "Write a terse but informative summary of the following video clip.",
    "Create a compact narrative representing the video presented.",
)
# The same requests of pictures, in the words that models of this family are trained with; VideoChat's own
# list of them is not public.
IMAGE_REQUESTS = (
    "Describe the following image concisely.",
    "Provide a brief description of the given image.",
    "Offer a succinct explanation of the picture presented.",
    "Summarize the visual content of the following image.",
    "Give a short and clear explanation of the subsequent image.",
    "Share a concise interpretation of the image provided.",
    "Present a compact description of the photo's key features.",
    "Relay a brief, clear account of the picture shown.",
    "Render a clear and concise summary of the photo below.",
    "Write a terse but informative summary of the following picture.",
    "Create a compact narrative representing the image presented.",
)


@dataclass(frozen=True)
class Supervised:
    """A training text.

    Attributes:
        before, after: what stands before and after the visual tokens.
        answers: the parts of ``after`` that are learnt, as first character and the one after the last: each
            answer with the space before it and the ``###`` that ends it.
    """

    before: str
    after: str
    answers: tuple[tuple[int, int], ...]


def sampled_sentence(times_s: Sequence[float]) -> str:
    """Return the sentence that tells the model when its frames were shown, in seconds."""
    times = ", ".join(f"{time_s:.1f}" for time_s in times_s)
    return f"The video contains {len(times_s)} frames sampled at {times} seconds."


def chat_prompt(
    kind: VisualKind | None, times_s: Sequence[float], turns: Sequence[tuple[str, str]], question: str
) -> tuple[str, str]:
    """Return a conversation up to the answer, as what stands before and after the visual tokens.

    Args:
        kind: what is shown; None where nothing is, and then all of the text stands before.
        times_s: when the frames of a video were shown.
        turns: questions and their answers so far.
    """
    said = "".join(f"Human: {asked}\n{STOP}Assistant: {answer}{STOP}" for asked, answer in turns)
    said += f"Human: {question}\n{STOP}Assistant:"
    if kind is None:
        return STOP + said, ""
    before, after = _tagged(kind)
    told = f" {sampled_sentence(times_s)}" if kind == "video" else ""
    return before, f"{after}{told}\n{STOP}{said}"


def caption_text(kind: VisualKind, request: str, caption: str) -> Supervised:
    """Return the text of stage 1: a request out of the lists above, and the caption."""
    before, after = _tagged(kind)
    asked = f"{after} {request} {STOP}Assistant:"
    text = f"{asked} {caption}{STOP}"
    return Supervised(before, text, ((len(asked), len(text)),))


def conversation_text(kind: VisualKind, times_s: Sequence[float], turns: Sequence[QA]) -> Supervised:
    """Return the text of stage 2: the frames' times, then questions and answers."""
    before, text = _tagged(kind)
    if kind == "video":
        text += f" {sampled_sentence(times_s)}"
    text += " "
    answers = []
    for turn in turns:
        text += f"{STOP}Human: {turn.question} {STOP}Assistant:"
        start = len(text)
        text += f" {turn.answer} "
        answers.append((start, len(text) + len(STOP)))
    return Supervised(before, f"{text}{STOP}", tuple(answers))


def _tagged(kind: VisualKind) -> tuple[str, str]:
    return f"{STOP}Human: <{_TAG[kind]}>", f"</{_TAG[kind]}>"
