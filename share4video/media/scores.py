"""What sampled pictures say of a span of video: how much is black, of one colour, frozen, and how it moves.

Pictures are looked at small (`SIDE`), which forgives the noise of cameras and codecs. Runs in the guarded
worker, but decodes nothing itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from share4video.media.painter import Rgb

SIDE = 64  # pixels of the longer side of a picture that is scored
_AREA = 0.98  # of a picture that must be black, or of one colour, as in FFmpeg's blackdetect
_BLACK_LUMA = 25.5  # a pixel is black below a tenth of full luma, as in FFmpeg's blackdetect
_SAME_COLOUR = 10  # levels of 255 by which a channel may differ from the picture's median
_NOISE_LUMA = 8  # levels by which a pixel may differ in two pictures of an encoded still

_Luma = npt.NDArray[np.float64]


class Scores:
    """Scores of one span, from its sampled pictures in order of time.

    ``black_share`` and ``single_colour_share`` are shares of the pictures. ``frozen_share`` is the share of
    neighbouring pictures of which no pixel differs by more than noise; a mean over the picture, as FFmpeg's
    freezedetect takes it, is larger for an encoded still than for a small thing that moves. ``motion`` is
    their mean absolute difference of luma, 0 (nothing changes) to 1 (black turns white). The two are None for
    a single picture.
    """

    NAMES = ("black_share", "single_colour_share", "frozen_share", "motion")

    def __init__(self) -> None:
        self._pictures = self._black = self._single_colour = self._frozen = 0
        self._differences: list[float] = []
        self._latest: _Luma | None = None

    def add(self, picture: Rgb) -> None:
        """Take the next picture into account: (height, width, 3) uint8, all of one size."""
        luma = picture @ np.array([0.299, 0.587, 0.114])
        self._pictures += 1
        self._black += bool(np.mean(luma < _BLACK_LUMA) >= _AREA)
        self._single_colour += _is_of_one_colour(picture)
        if self._latest is not None:
            difference = np.abs(luma - self._latest)
            self._differences.append(float(np.mean(difference)) / 255)
            self._frozen += bool(np.max(difference) <= _NOISE_LUMA)
        self._latest = luma

    @property
    def frozen_share(self) -> float | None:
        return self._frozen / len(self._differences) if self._differences else None

    def facts(self) -> dict[str, float | None]:
        """Return the scores by name. There must have been a picture."""
        pairs = len(self._differences)
        return {
            "black_share": self._black / self._pictures,
            "single_colour_share": self._single_colour / self._pictures,
            "frozen_share": self.frozen_share,
            "motion": sum(self._differences) / pairs if pairs else None,
        }


def _is_of_one_colour(picture: Rgb) -> bool:
    pixels = picture.reshape(-1, 3).astype(np.int16)
    away = np.abs(pixels - np.median(pixels, axis=0)).max(axis=1)
    return bool(np.mean(away <= _SAME_COLOUR) >= _AREA)
