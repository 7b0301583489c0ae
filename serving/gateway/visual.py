"""From a clip or an image in a request to the one image the model is sent."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.gateway.media_source import Kind, MediaSource
from serving.gateway.metrics import PHASE_SECONDS
from serving.gateway.refusal import Refusal
from serving.gateway.settings import GatewaySettings
from share4video.captioning.domain_guard import refuse_foreign_clip, refuse_foreign_image
from share4video.errors import UserError
from share4video.media.compose import frame_grid
from share4video.media.decode import uniform_frames
from share4video.media.decoders import Decoders
from share4video.media.limits import Limits, MediaError
from share4video.media.picture import read_picture

_MIME = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
_JPEGS = ("JPEG", "MPO")  # the second: several in one file, as phones write them


class VisualInput:
    """Fetches, decodes and composes under one gateway's limits."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.source = MediaSource.from_settings(settings)
        self.decoders = Decoders(settings.max_decoders, timed=PHASE_SECONDS.labels("decode").time)

    async def image(self, address: str, kind: Kind) -> str:
        """Return the model's image as a ``data:`` URI: a video's frame grid as PNG, an image as it came.

        Never an address: a server told to fetch for itself can be sent anywhere, itself included.

        Raises:
            Refusal: the media is not allowed, cannot be decoded, exceeds a limit or is foreign to the model.
        """
        async with self.source.open(address, kind) as path:
            work = self._grid if kind == "video" else self._checked_image
            return await self.decoders.run(work, path)

    def _grid(self, path: Path) -> str:
        try:
            frames = uniform_frames(path, self.settings.frames, limits=decode_limits(self.settings))
        except MediaError as error:
            raise undecodable(error) from error
        refuse_longer(frames[-1].timestamp_s, self.settings.max_duration_s)
        self.refuse_foreign([frame.rgb for frame in frames])
        sink = io.BytesIO()
        grid = frame_grid([frame.image for frame in frames])
        grid.save(sink, format="PNG", compress_level=1)  # lossless; the bytes travel inside the pod
        return _data_uri("image/png", sink.getvalue())

    def _checked_image(self, path: Path) -> str:
        known = self.settings.domain != "any"
        try:
            picture = read_picture(path, list(_MIME), pixels=known, limits=decode_limits(self.settings))
        except MediaError as error:
            raise undecodable(error, "image") from error
        if picture.rgb is not None:
            self._refuse_foreign_image(picture.rgb)
        mime = _MIME["JPEG" if picture.format in _JPEGS else picture.format]
        return _data_uri(mime, path.read_bytes())

    def _refuse_foreign_image(self, rgb: NDArray[np.uint8]) -> None:
        try:
            refuse_foreign_image(self.settings.domain, rgb, model=self.settings.model_name)
        except UserError as error:
            raise Refusal.of(error, code="foreign_clip") from error

    def refuse_foreign(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        """Raise Refusal (422) where the served model does not know clips of this kind."""
        try:
            refuse_foreign_clip(self.settings.domain, frames, model=self.settings.model_name)
        except UserError as error:
            raise Refusal.of(error, code="foreign_clip") from error


def decode_limits(settings: GatewaySettings) -> Limits:
    """Return the seconds and the pixels that decoding one clip may take."""
    return Limits(wall_s=settings.decode_timeout_s, max_pixels=settings.max_pixels)


def undecodable(error: MediaError, what: str = "clip") -> Refusal:
    """Turn what the decoder said about a file into an answer."""
    too_big = error.reason == "too_large"
    status, code = (413, "media_too_big") if too_big else (422, "media_undecodable")
    return Refusal(status, code, f"the {what} cannot be used: {error.sentence}")


def refuse_longer(seconds: float, bound_s: float) -> None:
    """Raise Refusal (413) where a clip that runs for at least ``seconds`` is over the bound."""
    if seconds > bound_s:
        raise Refusal(
            413, "media_too_long", f"the clip is longer than the {bound_s:g} seconds this gateway takes"
        )


def _data_uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
