"""What the model sees of a question: the 16-frame grid of a span of video.

Released MVBench keeps most videos in files and one task's in folders of numbered frames; both are read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from share4video.errors import UserError, reading
from share4video.evaluation.questions import Question
from share4video.media import compose, decode
from share4video.media.limits import MediaError

# Where MVBench's archives unpack to, by task file. A video is looked for right below the clips folder first.
VIDEO_ROOTS = {
    "action_antonym": "ssv2_video",
    "action_count": "perception/videos",
    "action_localization": "sta/sta_video",
    "action_prediction": "star/Charades_v1_480",
    "action_sequence": "star/Charades_v1_480",
    "character_order": "perception/videos",
    "counterfactual_inference": "clevrer/video_validation",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "fine_grained_pose": "nturgbd",
    "moving_attribute": "clevrer/video_validation",
    "moving_count": "clevrer/video_validation",
    "moving_direction": "clevrer/video_validation",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos",
    "scene_transition": "scene_qa/video",
    "state_change": "perception/videos",
    "unexpected_action": "FunQA_test/test",
}

FOLDER_FPS = 3.0  # of the videos that are folders of frames
_FRAME_NAME = re.compile(r"\d{5}\.jpg")
_MAX_FRAME_PIXELS = 4096 * 2304

Inspect = Callable[[Sequence[NDArray[np.uint8]], str], None]


@dataclass(frozen=True)
class Span:
    """A part of a video, or all of it; questions about one span share one grid."""

    path: Path
    start_s: float | None
    end_s: float | None


def locate(questions: Iterable[Question], clips: Path) -> dict[str, Span]:
    """Return the span of every question, by question id.

    Raises:
        UserError: the folder or one of the videos is missing or cannot be read.
    """
    spans: dict[str, Span] = {}
    missing: dict[str, None] = {}
    with reading("the clips folder", clips):
        if not clips.is_dir():
            raise UserError(
                "the clips folder is missing", where=str(clips), fix="give the folder the questions name"
            )
        for question in questions:
            path = clips / question.video
            if not path.exists() and question.task in VIDEO_ROOTS:
                path = clips / VIDEO_ROOTS[question.task] / question.video
            if path.exists():
                spans[question.id] = Span(path, question.start_s, question.end_s)
            else:
                missing.setdefault(question.video)
    if missing:
        raise UserError(
            f"{len(missing)} of the questions' videos are missing, first of all {next(iter(missing))}",
            where=str(clips),
            fix="give the folder the questions name, or take the task's file out of the question folder",
        )
    return spans


def grid(span: Span, frames: int, inspect: Inspect | None = None) -> Image.Image:
    """Return ``frames`` uniform frames of the span on the chat model's grid.

    Args:
        inspect: called with the frames, each (height, width, 3), and the video's name; it may refuse them.

    Raises:
        MediaError: the video cannot be read.
    """
    if span.path.is_dir():
        images = _folder_frames(span, frames)
    else:
        found = decode.uniform_frames(span.path, frames, span.start_s, span.end_s)
        images = [frame.image for frame in found]
    if inspect is not None:
        inspect([np.asarray(image) for image in images], span.path.name)
    return compose.frame_grid(images)


def _folder_frames(span: Span, frames: int) -> list[Image.Image]:
    """Read frames of a folder of ``00001.jpg``, ``00002.jpg``, ... at 3 frames per second.

    The reference's rule for spans: segments of ``(end - start) / n`` frames, taken half a segment in.
    """
    count = sum(bool(_FRAME_NAME.fullmatch(path.name)) for path in span.path.iterdir())
    if not count:
        raise MediaError("not_video", "the folder holds no frames named 00001.jpg and so on")
    first = 1 if span.start_s is None else max(1, round(span.start_s * FOLDER_FPS))
    last = count if span.end_s is None else min(round(span.end_s * FOLDER_FPS), count)
    segment = (last - first) / frames
    indices = [int(first + segment / 2 + round(segment * i)) for i in range(frames)]
    return [_read_frame(span.path / f"{min(max(index, 1), count):05d}.jpg") for index in indices]


def _read_frame(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            if image.width * image.height > _MAX_FRAME_PIXELS:
                raise MediaError("too_large", f"{path.name} is {image.width} x {image.height}")
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:  # Pillow reports a broken JPEG as either
        raise MediaError("unreadable", f"{path.name} is no readable frame") from error
