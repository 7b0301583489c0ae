"""A clip or a picture as an endpoint is sent it.

A gateway of ours takes the clip itself and does the rest. A plain vLLM or ``transformers serve`` of a
LLaVA-NeXT takes pictures alone: for it the clip's frames are laid out here, and the sentence the model was
trained with goes in front of the question.
"""

from __future__ import annotations

import base64
import io
import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from share4video.errors import UserError

# The released ShareGPT4Video-8B's own words (its system prompt is part of the checkpoint's chat template).
PRE_QUERY = (
    "The provided image arranges keyframes from a video in a grid view, keyframes are separated with white "
    "bands. Answer concisely with overall content and context of the video, highlighting any significant "
    "events, characters, or objects that appear throughout the frames."
)
GRID_FRAMES = 16
MAX_INLINE_BYTES = 64 << 20  # a larger file does not fit a gateway's request body as a data: URI

VisualKind = Literal["video", "image"]
Send = Literal["auto", "video", "frames-grid"]


@dataclass(frozen=True)
class Visual:
    """What a conversation over HTTP is about, and how it is sent.

    Attributes:
        address: a file, or a URL the endpoint may read.
        send: a clip as it is (``video``), as a picture of its frames (``frames-grid``), or as the endpoint
            takes it (``auto``).
        frames: on the grid; where it is given, ``auto`` is ``frames-grid``.
    """

    address: str
    kind: VisualKind = "video"
    send: Send = "auto"
    frames: int | None = None

    @property
    def is_url(self) -> bool:
        return "://" in self.address or self.address.startswith("data:")

    @property
    def _noun(self) -> str:
        return "clip" if self.kind == "video" else "picture"

    def check(self) -> None:
        """Raise UserError where a local file cannot be read: before a model is loaded, wherever it is."""
        if self.send == "video" and self.frames is not None:
            raise UserError(
                "a clip that is sent as it is has its frames chosen by the endpoint",
                where="--frames",
                fix="leave it out, or give --send frames-grid",
            )
        if self.is_url:
            return
        path = Path(self.address)
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise UserError(
                f"cannot read the {self._noun}: {error.strerror}", where=self.address, fix="check the path"
            ) from error

    def check_size(self, *, gateway: bool) -> None:
        """Raise UserError where what `part` would put into the request is too large for it."""
        if self.is_url or self._is_grid(gateway=gateway):
            return
        size = Path(self.address).stat().st_size
        if size > MAX_INLINE_BYTES:
            trim = "scale it down" if self.kind == "image" else "trim it, give --send frames-grid"
            raise UserError(
                f"the {self._noun} is {size} bytes, and at most {MAX_INLINE_BYTES} can be sent with a "
                "question",
                where=self.address,
                fix=f"{trim}, or name it by a URL the gateway may read (file://, s3:// or https://)",
            )

    def part(self, *, gateway: bool) -> tuple[dict[str, Any], str]:
        """Return the part of the first message, and what stands in front of the first question.

        Args:
            gateway: whether the endpoint is a gateway of ours, which takes clips.

        Raises:
            UserError: the file cannot be read or decoded or is too large, or a clip at a URL was to be laid
                out here.
        """
        self.check()
        self.check_size(gateway=gateway)
        if self.kind == "image":
            return _url_part("image_url", self._uri()), ""
        if not self._is_grid(gateway=gateway):
            return _url_part("video_url", self._uri()), ""
        if self.is_url:
            raise UserError(
                "the endpoint takes no clips, and frames are taken of local files alone",
                where=self.address[:200],
                fix="fetch the clip, or put a gateway in front with share4video serve",
            )
        return _url_part("image_url", grid_uri(Path(self.address), self.frames or GRID_FRAMES)), PRE_QUERY

    def _is_grid(self, *, gateway: bool) -> bool:
        automatic = self.frames is not None or not gateway
        return self.kind == "video" and (self.send == "frames-grid" or (self.send == "auto" and automatic))

    def _uri(self) -> str:
        if self.is_url:
            return self.address
        path = Path(self.address)
        found = mimetypes.guess_type(path.name)[0] or ""
        mime = found if found.startswith(f"{self.kind}/") else "application/octet-stream"
        return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def grid_uri(path: Path, frames: int) -> str:
    """Return ``frames`` frames of a clip on the model's grid, as a PNG in a ``data:`` URI.

    Raises:
        UserError: the file cannot be decoded.
    """
    from share4video.media import compose, decode
    from share4video.media.limits import MediaError

    try:
        shown = decode.uniform_frames(path, frames)
    except MediaError as error:
        raise UserError(
            f"the clip cannot be used: {error.sentence}", where=str(path), fix="give a video file"
        ) from error
    target = io.BytesIO()
    compose.frame_grid([frame.image for frame in shown]).save(target, "PNG")  # lossless, as in training
    return f"data:image/png;base64,{base64.b64encode(target.getvalue()).decode('ascii')}"


def _url_part(kind: str, url: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}}
