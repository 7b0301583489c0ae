"""train: dataset -> training mixture -> fine-tuned chat model."""

from typing import NamedTuple

from kfp import dsl

from components.mixture.component import mixture
from components.train.component import train as fine_tune
from pipelines.resources import place

TrainedOutputs = NamedTuple("TrainedOutputs", [("mixture", str), ("model", str)])


@dsl.pipeline(name="train", description="A captioned dataset to a fine-tuned chat model.")
def train(
    dataset: str,
    source: str,
    store: str,
    mixture_config: str = "{}",
    train_config: str = "{}",
) -> TrainedOutputs:
    """Fine-tune on ``dataset``, whose clips lie below ``source``."""
    samples = place(mixture(dataset=dataset, source=source, config=mixture_config, store=store), "mixture")
    tuned = place(fine_tune(mixture=samples.outputs["Output"], config=train_config, store=store), "train")
    return TrainedOutputs(mixture=samples.outputs["Output"], model=tuned.outputs["Output"])
