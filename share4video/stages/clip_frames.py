"""Frames of many clips, decoded ahead of the work done on them and encoded in batches that span clips."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from share4video.curation.encoders import FRAMES_PER_BATCH, FrameEncoder, Rgb, Vectors
from share4video.curation.filters import scene_words
from share4video.curation.samples import Samples
from share4video.media.limits import MediaError
from share4video.media.sources import clip_file

Row = Mapping[str, Any]

DECODERS = 2  # clips decoded side by side, each in a child process
FRAMES_HELD = 256  # of all the clips at hand; one clip alone may have more


@dataclass(frozen=True, eq=False)
class ClipFrames:
    """A clip's frames and what the encoder makes of each; None without an encoder."""

    samples: Samples
    encodings: Vectors | None


@dataclass(eq=False)
class _Clip:
    """A clip that is worked on."""

    row: Row
    frames: int  # it may have, at most
    decoding: Future[Samples]
    found: Samples | MediaError | None = None
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)


def clip_frames(
    clips: Sequence[Row],
    source: str,
    sample: Callable[[Path, Row], Samples],
    encoder: FrameEncoder | None,
    *,
    most_frames: Callable[[Row], int],
    decoders: int = DECODERS,
) -> Iterator[tuple[Row, ClipFrames | MediaError]]:
    """Yield each row of ``clips`` in turn with its frames, or with why it has none.

    Clips are decoded in child processes while the caller and the encoder work on those before. Each frame is
    encoded once, together with those of neighbouring clips. What is yielded does not depend on how many are
    decoded side by side; vectors do not depend on the batch as far as the encoder's do not.

    Args:
        source: the sources the clips were found in.
        sample: decodes a clip's frames.
        most_frames: how many that may be: no clip is begun that could bring those at hand over
            ``FRAMES_HELD``, except where there is no other.

    Raises:
        UserError: the source does not hold a clip as it was probed, or the encoder cannot be loaded.
    """
    waiting = deque(clips)
    at_hand: deque[_Clip] = deque()
    pending: list[tuple[_Clip, Rgb]] = []  # frames to encode

    def decoded(row: Row) -> Samples:
        with clip_file(source, row) as path:
            return sample(path, row)

    def room() -> bool:
        held = sum(clip.frames for clip in at_hand)
        return not at_hand or held + most_frames(waiting[0]) <= FRAMES_HELD

    def encode(count: int) -> None:
        if encoder is None or not pending:
            return
        vectors = encoder.encode([picture for _, picture in pending[:count]])
        for (clip, _), vector in zip(pending[:count], vectors, strict=True):
            clip.vectors.append(vector)
        del pending[:count]

    pool = ThreadPoolExecutor(max_workers=decoders, thread_name_prefix="decode")
    try:
        while waiting or at_hand:
            while waiting and room():
                row = waiting.popleft()
                at_hand.append(_Clip(row, most_frames(row), pool.submit(decoded, row)))
            clip = next((clip for clip in at_hand if clip.found is None), None)
            if clip is None:  # there is room for no other clip, or there is none
                encode(len(pending))
            else:
                clip.found = _outcome(clip.decoding)
                if isinstance(clip.found, Samples) and encoder is not None:
                    pending += [(clip, picture) for picture in clip.found.pictures]
            while len(pending) >= FRAMES_PER_BATCH:
                encode(FRAMES_PER_BATCH)
            while at_hand and (done := _done(at_hand[0], encoder)) is not None:
                yield at_hand.popleft().row, done
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(decoding: Future[Samples]) -> Samples | MediaError:
    try:
        return decoding.result()
    except MediaError as error:
        return error


def _done(clip: _Clip, encoder: FrameEncoder | None) -> ClipFrames | MediaError | None:
    """Return what is to be yielded of a clip; None where frames of it are not encoded yet."""
    found = clip.found
    if found is None or isinstance(found, MediaError):
        return found
    if encoder is None:
        return ClipFrames(found, None)
    if len(clip.vectors) < len(found.frames):
        return None
    return ClipFrames(found, np.stack(clip.vectors))


def reject_row(
    clip: Row,
    stage: str,
    reason: str,
    sentence: str,
    measured: float | None = None,
    bound: float | None = None,
) -> dict[str, Any]:
    """Return the clip's row of table ``rejects``; the sentence tells apart the scenes of one file."""
    if clip["scene"] is not None:
        sentence = f"{sentence}, {scene_words(clip['start_s'], clip['end_s'])}"
    return {
        "row_id": clip["row_id"],
        "source_uri": clip["source_uri"],
        "source_id": clip["source_id"],
        "clip_id": clip["clip_id"],
        "stage": stage,
        "reason": reason,
        "sentence": sentence,
        "measured": measured,
        "bound": bound,
    }


def media_reject(clip: Row, stage: str, error: MediaError) -> dict[str, Any]:
    """Return the row of table ``rejects`` of a clip that could not be decoded."""
    return reject_row(clip, stage, error.reason, error.sentence, error.measured, error.bound)


def shift_metrics(shifts_s: Sequence[float]) -> dict[str, float]:
    """Return how far key frames lie from the frames they stood for, in seconds; nothing where none did."""
    if not shifts_s:
        return {}
    return {"mean_shift_s": math.fsum(shifts_s) / len(shifts_s), "max_shift_s": max(shifts_s)}
