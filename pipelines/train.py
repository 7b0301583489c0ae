"""train: dataset -> training mixture -> fine-tuned chat model."""

from kfp import dsl

from components.mixture.component import mixture
from components.train.component import train as fine_tune
from pipelines.resources import place


@dsl.pipeline(name="train", description="A captioned dataset to a fine-tuned chat model.")
def train(
    dataset: str,
    source: str,
    store: str,
    mixture_config: str = "{}",
    train_config: str = "{}",
) -> str:
    """Fine-tune on ``dataset``; returns the checkpoint's stage output."""
    samples = place(mixture(dataset=dataset, source=source, config=mixture_config, store=store), "mixture")
    tuned = place(fine_tune(mixture=samples.outputs["Output"], config=train_config, store=store), "train")
    return tuned.outputs["Output"]
