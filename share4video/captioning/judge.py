"""A model that rates captions by the paper's three criteria of human evaluation (Tables 6 and 7).

One point each: nothing left out or made up, nothing distorted, nothing at the wrong time. The prompt is ours;
the paper's raters were people. Like every model's opinion it is an estimate: compare means of one judge only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from share4video.captioning.client import (
    CallError,
    ChatRequest,
    Completion,
    Message,
    Outcome,
    text_part,
)
from share4video.captioning.conversations import varied
from share4video.captioning.differential import ATTEMPTS, Failure
from share4video.captioning.role_inputs import KeyFrame
from share4video.captioning.roles import without_system
from share4video.captioning.scheduler import Call
from share4video.captioning.steps import call_key
from share4video.captioning.teacher import labelled
from share4video.config import EngineSpec

JUDGE = "judge"
_VERSION = "judge-1"
CRITERIA = ("omissions_fabrications", "distortion", "temporal_mismatch")
MAX_FRAMES = 16
MAX_TOKENS = 300
UNPARSABLE = "the judge's answer is not the JSON that was asked for"

_FRAME_LABEL = "Frame {number} at {time_s} s:"  # part of the version
_BLOCKS = """### Character
You are a strict and fair judge of video captions.
### Skills
You hold a caption against the key frames of its video, by three criteria, each apart from the others:
- omissions_fabrications: nothing that matters is left out, and nothing is described that is not there;
- distortion: what is described is described as it is: its kind, number, colour, size and place;
- temporal_mismatch: everything happens when and in the order the caption says, in the direction it says.
### Constraints
Give 1 where the caption is without fault by a criterion and 0 where it has one. What cannot be seen in key \
frames (sound, what is between them) is no fault. Answer with one JSON object and nothing else: \
{"omissions_fabrications": 0 or 1, "distortion": 0 or 1, "temporal_mismatch": 0 or 1, \
"reason": "one sentence"}
### Structured input
The key frames in order of time, each with its number and its time in seconds, then the caption."""
_FENCE = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)


def version(judge: EngineSpec) -> str:
    """Return the name of the prompts as a judge is sent them."""
    return _VERSION + ("" if judge.system_message else "+nosystem")


class Verdict(BaseModel):
    """A judge's answer: a point for each criterion without a fault."""

    model_config = ConfigDict(extra="forbid", strict=True)
    omissions_fabrications: Literal[0, 1]
    distortion: Literal[0, 1]
    temporal_mismatch: Literal[0, 1]
    reason: str = Field("", max_length=2000)

    @property
    def score(self) -> int:
        """The sum of the points, 0 to 3."""
        return self.omissions_fabrications + self.distortion + self.temporal_mismatch


def read_verdict(answer: str) -> Verdict | None:
    """Return the verdict in an answer, which may stand in a code fence; None where it is anything else."""
    text = answer.strip()
    if fenced := _FENCE.match(text):
        text = fenced.group(1)
    try:
        return Verdict.model_validate_json(text)
    except ValidationError:
        return None


def is_judged(clip_id: str, share: float) -> bool:
    """Whether a clip is among the ``share`` of clips to judge: the same clips in every run."""
    number = int.from_bytes(hashlib.sha256(f"judge/{clip_id}".encode()).digest()[:8], "big")
    return number < share * 2**64


class JudgeConversation:
    """One caption put before the judge, once more where the answer cannot be read.

    Args:
        system_message: whether the judge's chat template takes one.

    Attributes:
        result: None until it is over.
    """

    def __init__(
        self, clip_id: str, frames: Sequence[KeyFrame], caption: str, *, system_message: bool = True
    ) -> None:
        self.result: Verdict | Failure | None = None
        self._system_message = system_message
        self._clip_id, self._caption, self._attempt = clip_id, caption, 0
        self._frames = _some(frames)

    @property
    def calls_left(self) -> int:
        return int(self.result is None)

    def next(self) -> Call | None:
        if self.result is not None:
            self._frames = ()
            return None
        return Call(call_key(JUDGE, self._attempt, self._caption), JUDGE, self._request)

    def take(self, call: Call, outcome: Outcome) -> None:
        self._attempt += 1
        if isinstance(outcome, CallError):
            self.result = Failure(outcome.sentence)
            return
        assert isinstance(outcome, Completion)
        self.result = read_verdict(outcome.text)
        if self.result is None and self._attempt == ATTEMPTS:
            self.result = Failure(UNPARSABLE)

    def _request(self) -> ChatRequest:
        asked = judge_messages(self._frames, self._caption)
        request = ChatRequest(asked if self._system_message else without_system(asked), MAX_TOKENS)
        return varied(request, self._attempt, f"{self._clip_id}/{JUDGE}")


def judge_messages(frames: Sequence[KeyFrame], caption: str) -> list[Message]:
    """Return the messages that put a caption before the judge; the caption cannot pass for instructions."""
    said = text_part(f"The caption to judge, on one line: {' '.join(caption.split())}")
    content = [*labelled(frames, _FRAME_LABEL), said]
    return [{"role": "system", "content": _BLOCKS}, {"role": "user", "content": content}]


def _some(frames: Sequence[KeyFrame]) -> tuple[KeyFrame, ...]:
    """Return at most `MAX_FRAMES` of the frames, the first and the last among them."""
    if len(frames) <= MAX_FRAMES:
        return tuple(frames)
    step = (len(frames) - 1) / (MAX_FRAMES - 1)
    return tuple(frames[round(number * step)] for number in range(MAX_FRAMES))
