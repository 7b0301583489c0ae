"""What a reference chat runtime is shown, read within bounds and refused where the model does not know it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from share4video.captioning.domain_guard import domain_of, refuse_foreign_clip, refuse_foreign_image
from share4video.errors import UserError
from share4video.media.decode import Frame, uniform_frames
from share4video.media.limits import MediaError
from share4video.media.picture import read_picture

_FORMATS = ("JPEG", "PNG", "WEBP")


@dataclass(frozen=True)
class VisualReader:
    """Reads clips and pictures for the checkpoint in ``folder``."""

    folder: Path

    def video_frames(
        self, path: Path, count: int, *, choose: Callable[[Path, int], list[Frame]] = uniform_frames
    ) -> list[Image.Image]:
        """Return ``count`` frames spread evenly over a video, upright RGB; see `timed_frames`."""
        return [frame.image for frame in self.timed_frames(path, count, choose=choose)]

    def timed_frames(
        self, path: Path, count: int, *, choose: Callable[[Path, int], list[Frame]] = uniform_frames
    ) -> list[Frame]:
        """Return ``count`` frames spread over a video, upright, as the reference chooses them.

        Args:
            choose: the architecture's own way, where it is not that of ShareGPT4Video-8B.

        Raises:
            UserError: the file is no video that can be decoded, or one the model does not know.
        """
        self._check_file(path)
        try:
            frames = choose(path, count)
        except MediaError as error:
            raise UserError(
                f"the clip cannot be used: {error.sentence}", where=str(path), fix="give a video file"
            ) from error
        refuse_foreign_clip(
            domain_of(self.folder), [frame.rgb for frame in frames], model=self.folder.name, where=path.name
        )
        return frames

    def picture(self, path: Path) -> Image.Image:
        """Return a picture, upright RGB.

        Raises:
            UserError: the file is no picture that can be decoded, or one the model does not know.
        """
        self._check_file(path)
        try:
            rgb = read_picture(path, _FORMATS, pixels=True).rgb
        except MediaError as error:
            fix = f"give a {', '.join(_FORMATS)} file"
            if error.reason == "not_picture":
                raise UserError("the picture cannot be decoded", where=str(path), fix=fix) from error
            what = f"the picture cannot be used: {error.sentence}"
            raise UserError(what, where=str(path), fix=fix) from error
        assert rgb is not None
        refuse_foreign_image(domain_of(self.folder), rgb, model=self.folder.name, where=path.name)
        return Image.fromarray(rgb)

    def _check_file(self, path: Path) -> None:
        if not path.is_file():
            missing = MediaError("missing", "there is no such file")
            raise UserError(missing.sentence, where=str(path), fix="check the path") from missing
