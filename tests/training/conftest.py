"""A small real model with random weights, and samples for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from share4video.config import TrainConfig
from share4video.dataset.messages import Message
from share4video.training.samples import Sample

SMALL = TrainConfig(
    lora_rank=4,
    lora_alpha=8,
    lr_language=5e-3,
    lr_projector=1e-3,
    lr_tower=1e-4,
    batch_size=2,
    micro_batch_size=2,
    max_steps=4,
    save_every_steps=2,
    log_every_steps=2,
    precision="fp32",
    save_precision="fp32",
    activation_checkpointing=False,
)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LLaVA-NeXT checkpoint with random weights."""
    from share4video.synthetic.nano import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("base") / "model", "chat", seed=1)


@pytest.fixture(scope="session")
def processor(base: Path) -> Any:
    from share4video.models.llava_next.processor import load_processor

    return load_processor(base)


@pytest.fixture
def make_samples(tmp_path: Path) -> Callable[[int, int], list[Sample]]:
    """Returns a function that makes so many pictures, with so many questions about each."""

    def make(pictures: int, questions: int) -> list[Sample]:
        samples = []
        for picture in range(pictures):
            path = tmp_path / f"{picture}.png"
            pixels = np.random.default_rng(picture).integers(0, 255, (90 + 60 * picture, 200, 3), np.uint8)
            Image.fromarray(pixels).save(path)
            samples += [_question(path, picture, number) for number in range(questions)]
        return samples

    return make


def _question(path: Path, picture: int, number: int) -> Sample:
    colour = ("red", "blue", "green")[(picture + number) % 3]
    return Sample(
        f"{picture}-{number}",
        path,
        (
            Message("system", "Carefully watch the video."),
            Message("user", f"<image>\nQuestion: What colour is object {number}?{' Really?' * number}"),
            Message("assistant", f"Best option:({'ABC'[number % 3]}) {colour}"),
        ),
    )
