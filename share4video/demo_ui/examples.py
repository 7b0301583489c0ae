"""Clips to try: a few synthetic ones made when the app starts, and those of a folder."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from share4video.errors import UserError, reading
from share4video.media.decode import uniform_frames
from share4video.media.limits import Limits, MediaError
from share4video.synthetic.clips import write_clip
from share4video.synthetic.world import sample_clip

MAX_EXAMPLES = 24
_SYNTHETIC_SEEDS = (15, 3, 67, 66)  # short ones, of one thing and of two, on every kind of ground
_POSTER_SIDE = 320
_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"}
)


@dataclass(frozen=True)
class Example:
    """A clip to try.

    Attributes:
        poster: a JPEG file of a frame from its middle.
    """

    name: str
    path: Path
    poster: Path


def synthetic_examples(folder: Path) -> list[Example]:
    """Write a few synthetic clips, the ones the built-in models know, and their posters to ``folder``."""
    made = []
    for number, seed in enumerate(_SYNTHETIC_SEEDS, 1):
        path = folder / f"synthetic-{number}.mp4"
        write_clip(path, sample_clip(seed))
        made.append(Example(path.stem, path, _poster(path, folder, Limits())))
    return made


def examples_in(source: Path, folder: Path, limits: Limits) -> list[Example]:
    """Return the videos of ``source``, by name, that can be decoded, at most 24; posters go to ``folder``.

    Raises:
        UserError: the folder cannot be read, or none of its files is such a video.
    """
    with reading("the folder of examples", source):
        files = sorted(
            file for file in source.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file()
        )
    found: list[Example] = []
    for file in files:
        if len(found) == MAX_EXAMPLES:
            break
        try:
            found.append(Example(file.stem, file.resolve(), _poster(file, folder, limits)))
        except MediaError:  # one that does not work is no example
            continue
    if not found:
        fix = f"put videos there ({', '.join(sorted(_SUFFIXES))})"
        raise UserError("the folder holds no video that can be decoded", where=str(source), fix=fix)
    return found


def _poster(path: Path, folder: Path, limits: Limits) -> Path:
    """Write the middle one of three frames. Raises MediaError where the clip cannot be decoded."""
    frame = uniform_frames(path, 3, max_side=_POSTER_SIDE, limits=limits)[1]
    sink = io.BytesIO()
    frame.image.save(sink, "JPEG", quality=88)
    poster = folder / f"poster-{len(list(folder.glob('poster-*.jpg'))):02d}.jpg"
    poster.write_bytes(sink.getvalue())
    return poster
