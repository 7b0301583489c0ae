"""From an uploaded file, which may be anything, to the pictures the models are shown."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from share4video.caption_file import key_frames
from share4video.captioning.domain_guard import Domain, refuse_foreign_clip, refuse_foreign_image
from share4video.captioning.roles import KeyFrame
from share4video.config import KeyframeConfig
from share4video.curation.samples import sample
from share4video.demo_ui.settings import Bounds
from share4video.errors import UserError
from share4video.media.compose import GRID_LONG_SIDE, frame_grid, limit_long_side
from share4video.media.decode import uniform_frames
from share4video.media.decoders import Decoders
from share4video.media.limits import MediaError
from share4video.media.picture import read_picture
from share4video.media.probe import ClipInfo, file_size, probe

_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")
_GIVE_VIDEO = "give a video file, such as an mp4"
_GIVE_EITHER = "give a video, such as an mp4, or a JPEG, PNG or WebP image"


@dataclass(frozen=True)
class Picture:
    """What the chat model is shown.

    Attributes:
        image: a PNG file.
        kind: what it was made from: the frames of a video on one grid, or an image.
        facts: the file in a few words.
        refusal: why the model is not asked about it.
    """

    image: bytes
    kind: Literal["video", "image"]
    facts: str
    refusal: UserError | None = None

    @property
    def is_grid(self) -> bool:
        return self.kind == "video"


@dataclass(frozen=True)
class Shown:
    """A video's key frames, and its length in seconds."""

    frames: tuple[KeyFrame, ...]
    duration_s: float
    facts: str


class Uploads:
    """Reads files that visitors gave, within bounds. They are decoded in guarded child processes."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._decoders = Decoders(bounds.decoders)

    async def picture(self, path: Path, frames: int, *, domain: Domain = "any", model: str = "") -> Picture:
        """Return what the chat model is shown of a file.

        Args:
            frames: of a video, on the grid.
            domain: which clips the model knows, as far as is known here.
            model: its name, for the sentence.

        Raises:
            UserError: the file is neither a video nor an image, or goes over a bound. What is foreign to the
                model is no error yet: the clip may still be captioned by another.
        """
        return await self._decoders.run(self._picture, path, frames, domain, model)

    async def key_frames(
        self, path: Path, *, interval_s: float, most: int, domain: Domain = "any", model: str = ""
    ) -> Shown:
        """Return a video's key frames, chosen among one frame every ``interval_s`` seconds.

        Raises:
            UserError: the file is no video that can be decoded, goes over a bound, has more than ``most`` key
                frames, or is foreign to the model.
        """
        return await self._decoders.run(self._key_frames, path, interval_s, most, domain, model)

    def _picture(self, path: Path, frames: int, domain: Domain, model: str) -> Picture:
        name = path.name
        try:
            file_size(path, max_bytes=self.bounds.max_bytes)
            rgb = self._image(path)
            if rgb is not None:
                refusal = _refusal(refuse_foreign_image, domain, rgb, model, name)
                image = Image.fromarray(rgb)
                facts = f"{name} · image · {image.width} x {image.height}"
                return Picture(_png(limit_long_side(image, GRID_LONG_SIDE)), "image", facts, refusal)
            clip = self._probed(path)
            shown = uniform_frames(path, frames, limits=self.bounds.limits)
        except MediaError as error:
            raise _unusable(error, name, _GIVE_EITHER) from error
        refusal = _refusal(refuse_foreign_clip, domain, [frame.rgb for frame in shown], model, name)
        grid = frame_grid([frame.image for frame in shown])
        return Picture(_png(grid), "video", f"{_facts(clip, name)} · {frames} frames on the grid", refusal)

    def _key_frames(self, path: Path, interval_s: float, most: int, domain: Domain, model: str) -> Shown:
        name, config = path.name, KeyframeConfig(interval_s=interval_s)
        try:
            clip = self._probed(path)
            samples = sample(path, 0.0, clip.duration_s, config, limits=self.bounds.limits)
        except MediaError as error:
            raise _unusable(error, name, _GIVE_VIDEO) from error
        refuse_foreign_clip(domain, samples.pictures, model=model, where=name)
        chosen = key_frames(samples, config)
        if len(chosen) > most:
            raise UserError(
                f"the clip has {len(chosen)} key frames, and at most {most} are to be captioned",
                where=name,
                fix="look at it at longer intervals, or allow more key frames",
            )
        facts = f"{_facts(clip, name)} · {len(chosen)} key frames of {len(samples.frames)} frames looked at"
        return Shown(tuple(chosen), clip.duration_s, facts)

    def _probed(self, path: Path) -> ClipInfo:
        """Describe a video; of one that is too long no more is read than its header."""
        bound_s = self.bounds.max_duration_s
        clip = probe(
            path, limits=self.bounds.limits, max_file_bytes=self.bounds.max_bytes, decode_up_to_s=bound_s
        )
        if clip.duration_s > bound_s:
            raise MediaError(
                "too_long",
                f"the clip of {clip.duration_s:.0f} seconds is longer than the {bound_s:.0f} this app takes",
                measured=clip.duration_s,
                bound=bound_s,
            )
        return clip

    def _image(self, path: Path) -> npt.NDArray[np.uint8] | None:
        """Return the image in a file, upright, as (height, width, 3) RGB; None where the file is none.

        Raises:
            MediaError: it is damaged or goes over a bound.
        """
        try:
            return read_picture(path, _IMAGE_FORMATS, pixels=True, limits=self.bounds.limits).rgb
        except MediaError as error:
            if error.reason == "not_picture":
                return None
            raise


def thumbnail(image: bytes, side: int) -> bytes:
    """Return a small JPEG of an image file of ours, no side longer than ``side`` pixels."""
    sink = io.BytesIO()
    with Image.open(io.BytesIO(image)) as whole:
        whole.thumbnail((side, side))
        whole.convert("RGB").save(sink, "JPEG", quality=85)
    return sink.getvalue()


def _refusal(
    refuse: Callable[..., None], domain: Domain, shown: Any, model: str, name: str
) -> UserError | None:
    try:
        refuse(domain, shown, model=model, where=name)
    except UserError as error:
        return error
    return None


def _png(image: Image.Image) -> bytes:
    """Encode without loss, as the gateway does: a grid is small things side by side."""
    sink = io.BytesIO()
    image.save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def _facts(clip: ClipInfo, name: str) -> str:
    rate = f" · {clip.fps:.3g} fps" if clip.fps else ""
    return f"{name} · {clip.duration_s:.1f} s · {clip.width} x {clip.height}{rate} · {clip.codec}"


def _unusable(error: MediaError, name: str, fix: str) -> UserError:
    too_much = error.reason in ("too_large", "too_long", "decode_timeout", "decode_memory")
    remedy = "trim it or make it smaller" if too_much else fix
    return UserError(f"the file cannot be used: {error.sentence}", where=name, fix=remedy)
