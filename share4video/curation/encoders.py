"""What turns frames and captions into vectors. Similarity is the inner product of two of them.

Every encoder carries its own thresholds: a number that is right for one is wrong for the next. The encoders
here need numpy only and no weights; the learned ones are in ``neural`` and are loaded when they are named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from share4video.errors import UserError

FRAMES_PER_BATCH = 8  # what is gathered for one ``encode``, and what learned encoders compute at a time

Vectors = npt.NDArray[np.float32]
Rgb = npt.NDArray[np.uint8]


@runtime_checkable
class FrameEncoder(Protocol):
    """Describes pictures.

    Attributes:
        name: as configurations write it, but local weights by the hash of their content.
        revision: names the exact weights or algorithm; equal revisions give equal vectors.
        threshold: two frames less similar than this show different things (key frames).
        duplicate_threshold: two frames at least this similar may come from copies of one clip.
        cut_threshold: of two key frames less similar than this, the later begins another scene.
    """

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def threshold(self) -> float: ...
    @property
    def duplicate_threshold(self) -> float: ...
    @property
    def cut_threshold(self) -> float: ...

    def encode(self, frames: Sequence[Rgb]) -> Vectors:
        """Return float32 [N, D] with rows of length 1, for N frames of [H, W, 3] uint8 in RGB."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Describes captions; two at least ``threshold`` similar say the same."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def threshold(self) -> float: ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 [N, D] with rows of length 1, or of length 0 for a text without words."""
        ...


@dataclass(frozen=True)
class DescriptorEncoder:
    """Where a frame stands out from its own ground, and in which colour. No weights, no downloads.

    The frame is averaged into ``cells`` x ``cells`` overlapping cells. Each cell's colour is taken relative
    to the frame's median colour, in opponent axes (brightness, red-green, yellow-blue), and saturated: a cell
    that clearly stands out counts in full, whatever stands out elsewhere, and one whose contrast is far below
    ``contrast`` (texture, noise of the codec) hardly at all. Four more numbers, ``ground`` times a constant
    and the median colour, keep a frame on which nothing stands out from being all noise.

    So the similarity of two frames falls with the area that changed, over the area that stands out. It does
    not know what it looks at: a moving camera changes everything, and on real video every sway is a change.
    Coarser cells forgive small shifts (crops) and see less detail.
    """

    name: str = "descriptor"
    cells: int = 16
    contrast: float = 0.2  # of full scale, where a cell counts by 1 / sqrt(2)
    ground: float = 0.3
    threshold: float = 0.97
    duplicate_threshold: float = 0.925
    cut_threshold: float = 0.4  # 99 of 100 pairs of frames of different films are below 0.38
    revision: str = "1"

    def encode(self, frames: Sequence[Rgb]) -> Vectors:
        """See ``FrameEncoder``; frames may differ in size. Raises ValueError where one is not RGB uint8."""
        rows = [self._describe(frame) for frame in frames]
        return np.stack(rows) if rows else np.empty((0, 3 * self.cells**2 + 4), np.float32)

    def _describe(self, frame: Rgb) -> npt.NDArray[np.float32]:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise ValueError(f"expected an RGB uint8 frame, got {frame.dtype} {frame.shape}")
        height, width = frame.shape[:2]
        rows = _averaging(height, self.cells) @ frame.reshape(height, -1).astype(np.float32)
        colours = np.einsum("rwc,kw->rkc", rows.reshape(self.cells, width, 3), _averaging(width, self.cells))
        colours = colours.reshape(-1, 3) / 255
        median = np.median(colours, axis=0)
        opponent = (colours - median) @ _OPPONENT
        saturated = opponent / np.sqrt((opponent**2).sum(axis=1, keepdims=True) + self.contrast**2)
        ground = np.array([_STEADY, *(self.ground * (median - 0.5))], np.float32)
        vector = np.concatenate([saturated.ravel() / self.cells, ground])
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


_STEADY = 0.15
# Columns: brightness, red-green, yellow-blue; hues weigh more than their share of the energy.
_OPPONENT = np.array([[1 / 3, 0.75, 0.375], [1 / 3, -0.75, 0.375], [1 / 3, 0.0, -0.75]], np.float32)


@lru_cache(maxsize=64)
def _averaging(pixels: int, cells: int) -> npt.NDArray[np.float32]:
    """Return [cells, pixels] weights: a tent around each cell's centre, as wide as two cells."""
    pitch = pixels / cells
    centres = (np.arange(cells) + 0.5) * pitch
    distance = np.abs(np.arange(pixels) + 0.5 - centres[:, None])
    weights = np.clip(1 - distance / max(1.0, pitch), 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


DESCRIPTOR = DescriptorEncoder()
# For whole clips: forgives crops and re-encoding, and is blind to brightness as such.
COARSE_DESCRIPTOR = DescriptorEncoder(name="descriptor-coarse", cells=8, ground=0.0, cut_threshold=0.55)
# Of CLIP's class tokens; ours, not measured. Here, so that whoever reads key frames need not load the model.
CLIP_CUT_THRESHOLD = 0.7


@dataclass(frozen=True)
class HashingEncoder:
    """Which words and pairs of neighbouring words occur, hashed, with random signs. No weights, no corpus.

    Equal words give equal vectors in every process and on every machine. It knows no synonyms: at the default
    threshold captions count as the same when no word of a short sentence differs.
    """

    name: str = "hashing"
    dimensions: int = 1024
    threshold: float = 0.9
    revision: str = "1"

    def encode(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for term in _terms(text):
                number = int.from_bytes(blake2b(term.encode(), digest_size=8).digest(), "big")
                vector[(number >> 1) % self.dimensions] += 1 if number & 1 else -1
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(lengths > 0, lengths, 1)
        return vectors


def _terms(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {*words, *(f"{left} {right}" for left, right in zip(words, words[1:], strict=False))}


@lru_cache(maxsize=2)
def frame_encoder(name: str) -> FrameEncoder:
    """Return the frame encoder a configuration names; its weights are loaded at the first ``encode``.

    The last two named are kept, so that the shards of a run load theirs once.

    ``descriptor``, ``descriptor-coarse``, or ``open_clip:ARCHITECTURE[/WEIGHTS]``, where weights are a tag
    that open_clip knows, a ``.safetensors`` file, or ``random`` (for measurements).

    Raises:
        UserError: there is no such encoder.
    """
    for encoder in (DESCRIPTOR, COARSE_DESCRIPTOR):
        if encoder.name == name:
            return encoder
    kind, _, model = name.partition(":")
    if kind == "open_clip" and model:
        from share4video.curation.neural import OpenClipEncoder

        return OpenClipEncoder.named(model)
    raise UserError(
        "unknown frame encoder",
        where=name,
        fix="use descriptor, descriptor-coarse or open_clip:ViT-L-14-336-quickgelu",
    )


def cut_threshold(name: str) -> float:
    """Return the ``FrameEncoder.cut_threshold`` of the encoder a configuration names, loading nothing.

    Raises:
        UserError: there is no such encoder.
    """
    return CLIP_CUT_THRESHOLD if name.startswith("open_clip:") else frame_encoder(name).cut_threshold


@lru_cache(maxsize=2)  # so that the shards of a run load theirs once
def text_encoder(name: str) -> TextEncoder:
    """Return the text encoder a configuration names; its weights are loaded at the first ``encode``.

    ``hashing``, ``bert:MODEL`` (its class token) or ``sentence:MODEL`` (a sentence-transformers model), with
    a folder or a name of the model hub.

    Raises:
        UserError: there is no such encoder.
    """
    if name == "hashing":
        return HashingEncoder()
    kind, _, model = name.partition(":")
    if kind in ("bert", "sentence") and model:
        from share4video.curation.neural import BertEncoder, SentenceEncoder

        return BertEncoder(model) if kind == "bert" else SentenceEncoder(model)
    raise UserError(
        "unknown text encoder",
        where=name,
        fix="use hashing, bert:bert-base-uncased or sentence:all-MiniLM-L6-v2",
    )
