"""Videos and pictures as VideoChat is shown them, from files that may hold anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from share4video.media import decode
from share4video.media.decode import Frame
from share4video.models.chat_session import VisualKind
from share4video.models.visuals import VisualReader

_ALL_S = 1e7  # longer than any file: a span that holds all of it

Choose = Callable[[int], list[int]]


@dataclass(frozen=True)
class Visual:
    """Upright RGB pictures; ``times_s`` are when a video's frames come on show, empty for a picture."""

    kind: VisualKind
    images: tuple[Image.Image, ...]
    times_s: tuple[float, ...] = ()


def read_visual(
    path: Path, kind: VisualKind, frames: int, *, model: Path, choose: Choose | None = None
) -> Visual:
    """Read a picture, or ``frames`` frames of a video with their true times.

    Args:
        model: the folder of the checkpoint that is shown it.
        choose: the numbers of the frames to take, of as many as the video shows; None spreads them evenly, as
            the released demo does.

    Raises:
        UserError: the file cannot be read or decoded, is over the bounds, or is none that the model knows.
            Its cause is the `MediaError`, where there is one.
    """
    reader = VisualReader(model)
    if kind == "image":
        return Visual("image", (reader.picture(path),))

    def chosen(path: Path, count: int) -> list[Frame]:
        if choose is None:
            return decode.uniform_frames(path, count)
        shown_s, _ = decode.frame_times(path, 0.0, _ALL_S)
        return decode.frames_at(path, [shown_s[number] for number in choose(len(shown_s))])

    found = reader.timed_frames(path, frames, choose=chosen)
    return Visual("video", tuple(frame.image for frame in found), tuple(frame.timestamp_s for frame in found))
