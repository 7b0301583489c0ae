"""What VideoChat is trained on: videos and pictures read, cropped and put into words, or rejected.

The released code took a random other sample for one it could not read, and said nothing. Here every file is
read once before the training begins; what cannot be read is a reject with its reason, and a file that breaks
after that stops the training.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from share4video.config import VideoChatAlignConfig
from share4video.dataset.formats import videochat
from share4video.dataset.formats.lines import Reject
from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.models.chat_session import VisualKind
from share4video.models.videochat.processor import EncodedText, VideoChatProcessor
from share4video.models.videochat.prompts import (
    IMAGE_REQUESTS,
    STOP,
    VIDEO_REQUESTS,
    Supervised,
    caption_text,
    conversation_text,
)
from share4video.models.videochat.visuals import Visual, read_visual
from share4video.training.samples import RejectedSample

Stage = Literal[1, 2]
Progress = Callable[[str, int, int], None]
_AHEAD = 4  # samples that are being read, or wait to be, for each thread
_ASPECTS = (3 / 4, 4 / 3)  # of a crop, width by height


@dataclass(frozen=True)
class Sample:
    """A video or a picture, and what is learnt of it: a text in stage 1, questions and answers in stage 2."""

    sample_id: str
    kind: VisualKind
    path: Path
    caption: str = ""
    turns: tuple[videochat.QA, ...] = ()


def load_samples(files: Sequence[Path], media: Path, stage: Stage) -> list[Sample | RejectedSample]:
    """Read training files; samples are named ``FILE:NUMBER``.

    Args:
        media: the folder that the paths in the files start from.

    Raises:
        UserError: a file cannot be read or is no JSON list.
    """
    root = media.resolve()
    found: list[Sample | RejectedSample] = []
    for file in files:
        for number, element in enumerate(videochat.read(file), start=1):
            name = f"{file.name}:{number}"
            if isinstance(element, Reject):
                found.append(RejectedSample(name, element.reason, element.sentence))
            else:
                found.append(_sample(name, element, root, stage))
    return found


def _sample(name: str, element: videochat.Sample, root: Path, stage: Stage) -> Sample | RejectedSample:
    path = (root / element.path).resolve()
    if not path.is_relative_to(root):
        return RejectedSample(name, "outside_media", f"{element.path} leads out of the media folder")
    if isinstance(element, videochat.Caption):
        if stage == 2:
            return RejectedSample(name, "wrong_form", "stage 2 learns questions and answers, not captions")
        sample, texts = Sample(name, element.kind, path, caption=element.text), [element.text]
    else:
        if stage == 1:
            return RejectedSample(name, "wrong_form", "stage 1 learns captions, not questions and answers")
        sample = Sample(name, element.kind, path, turns=element.turns)
        texts = [text for turn in element.turns for text in (turn.question, turn.answer)]
    if any(STOP in text for text in texts):
        return RejectedSample(name, "stop_in_text", f"a text holds {STOP}, with which every turn ends")
    return sample


class Reader:
    """Makes samples into what a training step takes; the same seed gives the same crops, frames and requests.

    Args:
        model: the folder of the checkpoint that is trained.
    """

    def __init__(self, processor: VideoChatProcessor, config: VideoChatAlignConfig, model: Path) -> None:
        self._processor, self._config, self._model = processor, config, model

    def check(
        self, samples: Sequence[Sample], progress: Progress | None = None
    ) -> tuple[list[Sample], list[RejectedSample]]:
        """Read every sample as an evaluation would; return those that can be trained on, and the others."""
        kept: list[Sample] = []
        rejected: list[RejectedSample] = []
        threads = len(os.sched_getaffinity(0))
        begun: deque[tuple[Sample, Future[RejectedSample | None]]] = deque()
        waiting = iter(samples)
        with ThreadPoolExecutor(threads) as pool:
            for done in range(1, len(samples) + 1):
                for sample in islice(waiting, _AHEAD * threads - len(begun)):
                    begun.append((sample, pool.submit(self._reject_of, sample)))
                sample, read = begun.popleft()
                reject = read.result()
                kept += [sample] if reject is None else []
                rejected += [] if reject is None else [reject]
                if progress is not None:
                    progress("reading", done, len(samples))
        return kept, rejected

    def __call__(self, sample: Sample, place: int) -> tuple[torch.Tensor, EncodedText]:
        """Return a sample's (T, 3, side, side) pictures and its text for place ``place`` of a training.

        Raises:
            UserError: the file broke since it was checked.
        """
        random = np.random.default_rng([self._config.seed, place])
        choose = partial(one_of_each_part, parts=self._config.frames, random=random)
        try:
            visual = read_visual(
                sample.path, sample.kind, self._config.frames, model=self._model, choose=choose
            )
        except UserError as error:
            raise UserError(
                f"the {sample.kind} can no longer be read: {_cause(error).sentence}",
                where=str(sample.path),
                fix="bring it back, or take it out of the training file, and run the training again",
            ) from error
        return self._pixels(visual, random), self._encode(sample, visual, random)

    def _reject_of(self, sample: Sample) -> RejectedSample | None:
        try:
            visual = read_visual(sample.path, sample.kind, self._config.frames, model=self._model)
        except UserError as error:
            why = _cause(error)
            return RejectedSample(sample.sample_id, why.reason, why.sentence, why.measured, why.bound)
        text = self._encode(sample, visual, np.random.default_rng(0))
        tokens = int(text.supervised.sum()) if sample.caption else len(self._after(text))
        bound = self._config.max_text_tokens
        if tokens > bound:
            sentence = f"the text has {tokens} tokens, and at most {bound} are taken"
            return RejectedSample(sample.sample_id, "too_long", sentence, tokens, bound)
        return None

    def _after(self, text: EncodedText) -> torch.Tensor:
        return text.input_ids[int((text.input_ids < 0).nonzero()[-1]) + 1 :]

    def _encode(self, sample: Sample, visual: Visual, random: np.random.Generator) -> EncodedText:
        return self._processor.encode(_text(sample, visual, random))

    def _pixels(self, visual: Visual, random: np.random.Generator) -> torch.Tensor:
        images = visual.images
        if random.random() < self._config.flip_share:
            images = tuple(ImageOps.mirror(image) for image in images)
        if self._config.crop_min_share == 1:
            return self._processor.pixels(images, visual.kind)
        box = crop_box(images[0].width, images[0].height, self._config.crop_min_share, random)
        side = (self._processor.side, self._processor.side)
        cropped = [np.asarray(image.resize(side, Image.Resampling.BICUBIC, box)) for image in images]
        pixels = torch.from_numpy(np.stack(cropped)).permute(0, 3, 1, 2) / 255
        return self._processor.normalised(pixels)


def _cause(error: UserError) -> MediaError:
    """Return what a file was refused for: as the decoder says it, or else, such as by the domain guard."""
    if isinstance(error.__cause__, MediaError):
        return error.__cause__
    reason = "refused" if error.__cause__ is None else "unreadable"
    return MediaError(reason, f"{error.what}: {error.fix}" if error.fix else error.what)


def _text(sample: Sample, visual: Visual, random: np.random.Generator) -> Supervised:
    if sample.turns:
        return conversation_text(sample.kind, visual.times_s, sample.turns)
    requests = VIDEO_REQUESTS if sample.kind == "video" else IMAGE_REQUESTS
    return caption_text(sample.kind, requests[int(random.integers(len(requests)))], sample.caption)


def one_of_each_part(count: int, *, parts: int, random: np.random.Generator) -> list[int]:
    """Return a number below ``count`` at random out of each of ``parts`` equal parts, in order.

    Where ``count`` is smaller than ``parts``, some come again.
    """
    edges = np.linspace(0, count, parts + 1)
    drawn = random.uniform(edges[:-1], edges[1:])
    return [min(int(number), count - 1) for number in drawn]


def crop_box(
    width: int, height: int, min_share: float, random: np.random.Generator
) -> tuple[float, float, float, float]:
    """Return a part of a picture of at least about ``min_share`` of its area: left, top, right, bottom.

    All frames of a video are cut alike. torchvision's crop draws from torch's one random state, which the
    threads that read a batch share.
    """
    area = width * height * random.uniform(min_share, 1)
    aspect = np.exp(random.uniform(*np.log(_ASPECTS)))
    wide, tall = min(width, (area * aspect) ** 0.5), min(height, (area / aspect) ** 0.5)
    left, top = random.uniform(0, width - wide), random.uniform(0, height - tall)
    return float(left), float(top), float(left + wide), float(top + tall)


def content_of(files: Sequence[Path]) -> str:
    """Return the SHA-256 over training files, in hexadecimal. Raises UserError where one cannot be read."""
    total = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise UserError(
                f"cannot read the file: {error.strerror}", where=str(file), fix="check the path"
            ) from error
    return total.hexdigest()
