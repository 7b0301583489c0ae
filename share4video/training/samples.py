"""Samples of a mixture as token ids: what fits goes on, what does not is counted and said."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from PIL import Image

from share4video.dataset.manifest import StageRef
from share4video.dataset.messages import Message, MessageError, check_messages, decode_messages
from share4video.dataset.shards import fetch_files, read_table
from share4video.media.frame_strip import strip_frames
from share4video.models.family import family_of_processor
from share4video.store import Store

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Sample:
    """One conversation of the mixture.

    Attributes:
        image: a local file: a picture, or with ``video`` the frames of a clip as `media.frame_strip` keeps
            them; None for text alone.
    """

    sample_id: str
    image: Path | None
    messages: tuple[Message, ...]
    video: bool = False


@dataclass(frozen=True)
class TokenSample:
    """A sample as token ids; ``supervised`` marks the answers, both are (length,)."""

    sample_id: str
    image: Path | None
    image_size: tuple[int, int] | None  # height, width in pixels
    input_ids: torch.Tensor
    supervised: torch.Tensor
    frames: int = 0  # of the strip; 0 for a picture

    @property
    def length(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class RejectedSample:
    """A sample that cannot be trained on. ``reason`` is one of ``bad_messages``, ``bad_image``, ``too_long``
    and ``no_supervised_tokens``."""

    sample_id: str
    reason: str
    sentence: str
    measured: float | None = None
    bound: float | None = None


def load_samples(store: Store, mixture: StageRef, folder: Path) -> list[Sample | RejectedSample]:
    """Read the ``sft`` table and fetch its pictures below ``folder``.

    Raises:
        UserError: the mixture is missing or damaged.
    """
    fetch_files(store, mixture, folder, "images/")
    fetch_files(store, mixture, folder, "frames/")
    samples: list[Sample | RejectedSample] = []
    for row in read_table(store, mixture, "sft").to_pylist():
        name, video = row["image"] or row["video"], row["video"] is not None
        image = None if name is None else folder / name
        try:
            messages = decode_messages(row["messages"])
            check_messages(messages, image=image is not None)
            samples.append(Sample(row["sample_id"], image, messages, video))
        except MessageError as error:
            samples.append(RejectedSample(row["sample_id"], "bad_messages", str(error)))
    return samples


def tokenize(
    processor: Any, samples: Sequence[Sample], max_length: int, progress: Progress | None = None
) -> tuple[list[TokenSample], list[RejectedSample]]:
    """Turn samples into token ids.

    A sample longer than ``max_length`` tokens is a reject: a cut would go through the image tokens or the
    answer. So is one whose answers are not supervised at all.
    """
    kept: list[TokenSample] = []
    rejected: list[RejectedSample] = []
    sizes: dict[Path, tuple[int, int]] = {}
    for done, sample in enumerate(samples, start=1):
        found = _tokenize_one(processor, sample, max_length, sizes)
        if isinstance(found, TokenSample):
            kept.append(found)
        else:
            rejected.append(found)
        if progress is not None:
            progress("tokenizing", done, len(samples))
    return kept, rejected


def _tokenize_one(
    processor: Any, sample: Sample, max_length: int, sizes: dict[Path, tuple[int, int]]
) -> TokenSample | RejectedSample:
    size, frames = None, 0
    family = family_of_processor(processor)
    if sample.image is not None:
        if sample.video and not family.takes_videos:
            sentence = "the base model looks at pictures, and the sample is about a clip's frames"
            return RejectedSample(sample.sample_id, "bad_image", sentence)
        try:
            size = sizes[sample.image] if sample.image in sizes else _size(sample.image)
            frames = strip_frames(size) if sample.video else 0
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            return RejectedSample(sample.sample_id, "bad_image", f"the picture cannot be read: {error}")
        sizes[sample.image] = size
    encoded = family.encode_text(processor, sample.messages, size, frames)
    length = len(encoded.input_ids)
    if length > max_length:
        return RejectedSample(
            sample.sample_id,
            "too_long",
            f"the sample has {length} tokens, and a sequence may have {max_length}",
            length,
            max_length,
        )
    if not bool(encoded.supervised.any()):
        return RejectedSample(
            sample.sample_id,
            "no_supervised_tokens",
            "the chat template marks none of its tokens as answer",
            0,
            1,
        )
    return TokenSample(sample.sample_id, sample.image, size, encoded.input_ids, encoded.supervised, frames)


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path, formats=["JPEG", "PNG"]) as image:
        return image.height, image.width


class Pictures:
    """Pictures as tiles, each processed once while the cache has room, again later where it has not.

    Args:
        strips: those of the pictures that are the frames of a clip.
    """

    def __init__(self, processor: Any, cache_bytes: int, strips: Collection[Path] = ()) -> None:
        self._processor, self._room = processor, cache_bytes
        self._family, self._strips = family_of_processor(processor), frozenset(strips)
        self._full = cache_bytes <= 0
        self._tiles: dict[Path, torch.Tensor] = {}
        self._lock = Lock()

    def __call__(self, path: Path) -> torch.Tensor:
        """Return (tiles, 3, side, side) in float32; of a strip the frames, of a whole picture one tile."""
        if path in self._tiles:
            return self._tiles[path]
        with Image.open(path, formats=["JPEG", "PNG"]) as image:
            tiles = self._family.encode_image(self._processor, image.convert("RGB"), path in self._strips)
        size = tiles.numel() * tiles.element_size()
        with self._lock:
            if size <= self._room:
                self._room -= size
                self._tiles[path] = tiles
            else:
                self._full = True  # as good as full: `load` stops, a smaller one may still find room
        return tiles

    def load(self, paths: Sequence[Path], progress: Progress | None = None) -> None:
        """Fill the cache with ``paths`` as far as there is room, decoding on all cores."""
        from concurrent.futures import ThreadPoolExecutor

        wanted = list(dict.fromkeys(paths))
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for done, _ in enumerate(pool.map(self._load_one, wanted), start=1):
                if progress is not None:
                    progress("pictures", done, len(wanted))

    def _load_one(self, path: Path) -> None:
        if not self._full:
            self(path)
