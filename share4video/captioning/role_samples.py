"""What the captioner's roles are trained on: a role's input, and the caption that answers it.

The paper trains ShareCaptioner-Video on four roles (section 4.1): fast, sliding, summary, and the making of a
dense caption from a short prompt. Inputs become messages in the same way as when the captioner is asked, so
that it is trained on what it will be given.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from share4video.captioning.roles import (
    Difference,
    Fast,
    First,
    KeyFrame,
    Recaption,
    RoleInput,
    Summary,
    TimedCaption,
    Window,
    messages,
)
from share4video.dataset.messages import IMAGE_MARK, Message
from share4video.dataset.published import ClipSample, Row
from share4video.wording import Adapted, TileBudgets

TrainedRole = Literal["fast", "sliding", "summary", "recaption"]
ROLES: tuple[TrainedRole, ...] = ("fast", "sliding", "summary", "recaption")

# The way back from a dense caption to a short prompt. The release has no words for it: these are ours.
SHORTEN = "Translate this detailed caption into a brief generation prompt: "

# A check of a differential caption whose key frame has no known time: no prompt of the captioner has it so.
NO_TIMESTAMP = "no_timestamp"
_PROMPT_ROLE = "prompt"  # of rows that hold a short generation prompt for the clip


@dataclass(frozen=True)
class RoleSample:
    """One training sample.

    Attributes:
        name: tells it apart from the clip's others.
        frames: indices of the key frames its picture shows, in order; none where it is text alone.
        given: makes the role's input from those frames; None for the way back, whose ``text`` is the request.
    """

    name: str
    role: TrainedRole
    frames: tuple[int, ...]
    target: str
    given: Callable[[tuple[KeyFrame, ...]], RoleInput] | None = None
    text: str = ""


def role_samples(clip: ClipSample) -> Iterator[RoleSample]:
    """Yield the samples a clip gives, in order; captions that failed a check are no targets.

    * fast: all key frames, answered by the fast caption, or by the summary of a clip that has none;
    * sliding: the first frame (and every anchor) alone, each pair with the differential caption before, and
      each window with the caption before; a window's frames are the key frames from the one that was told
      before it to its own, most of which have no caption;
    * summary: all differential captions, answered by the summary;
    * recaption: each ``prompt`` row and the summary, in both directions.
    """
    timed = all(NO_TIMESTAMP not in row["checks"] for row in clip.differentials)
    differentials = clip.differentials if timed else ()
    sound = [not row["checks"] for row in differentials]
    whole = [row for row in clip.captions if not row["checks"]]
    summary = next((row["caption"] for row in whole if row["role"] == "summary"), None)
    fast = next((row["caption"] for row in whole if row["role"] == "fast"), summary)
    indices = tuple(int(row["index"]) for row in differentials)
    if fast is not None and indices:
        yield RoleSample("fast", "fast", indices, fast, Fast)
    for place, row in enumerate(differentials):
        if sound[place] and row["caption"].strip():
            yield from _sliding(differentials, place)
    if summary is not None and differentials and all(row["caption"].strip() for row in differentials):
        captions = tuple(
            TimedCaption(int(row["index"]) + 1, row["end_s"], row["caption"]) for row in differentials
        )
        yield RoleSample("summary", "summary", (), summary, lambda _: Summary(captions))
    if summary is not None:
        prompts = [row["caption"] for row in whole if row["role"] == _PROMPT_ROLE]
        for number, prompt in enumerate(prompts):
            yield _recaption(number, prompt, summary)
            yield RoleSample(f"prompt-{number}", "recaption", (), prompt, text=SHORTEN + summary)


def _sliding(differentials: tuple[Row, ...], place: int) -> Iterator[RoleSample]:
    """Yield the sample of one row; none of a change that has nothing before it."""
    row, index = differentials[place], int(differentials[place]["index"])
    frames: tuple[int, ...] = (index,)
    given: Callable[[tuple[KeyFrame, ...]], RoleInput]
    if row["kind"] in ("first", "anchor"):
        given = _first
    elif place == 0:
        return
    else:
        before = differentials[place - 1]
        if row["kind"] == "window":
            frames = tuple(range(int(before["index"]), index + 1))
            given = partial(Window, before=before["caption"])
        else:
            frames = (int(before["index"]), index)
            given = partial(_difference, before=before["caption"])
    yield RoleSample(f"sliding-{index:03d}", "sliding", frames, row["caption"], given)


def _first(frames: tuple[KeyFrame, ...]) -> First:
    return First(frames[0])


def _difference(frames: tuple[KeyFrame, ...], before: str) -> Difference:
    return Difference(frames[0], frames[1], before)


def _recaption(number: int, prompt: str, summary: str) -> RoleSample:
    return RoleSample(f"recaption-{number}", "recaption", (), summary, lambda _: Recaption(prompt))


def conversation(
    sample: RoleSample, frames: tuple[KeyFrame, ...], tiles: TileBudgets | None = None
) -> tuple[tuple[Message, Message], bytes | None]:
    """Return the sample's two turns in the released captioner's words, and its picture as JPEG.

    Args:
        frames: the key frames that ``sample.frames`` names, in that order.
        tiles: the picture is whole tiles within these budgets; None leaves it as it is composed.
    """
    if sample.given is None:
        return (Message("user", sample.text), Message("assistant", sample.target)), None
    (asked,) = messages(Adapted(words="sharecaptioner", tiles=tiles), sample.given(frames))
    picture, text = None, ""
    for part in asked["content"]:
        if part["type"] == "image_url":
            picture = base64.b64decode(part["image_url"]["url"].partition(",")[2])
        else:
            text = part["text"]
    mark = "" if picture is None else f"{IMAGE_MARK}\n"
    return (Message("user", mark + text), Message("assistant", sample.target)), picture
