"""The pipelines by name: where each is defined, which stages it runs, which arguments it takes.

Importing this costs nothing: what is said here of a pipeline's parameters is checked against the compiled
pipelines by a test.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from share4video.config import RunConfig
from share4video.errors import UserError
from share4video.stages.chain import CAPTION_STAGES, CURATE_STAGES, RELEASE_STAGES, TRAIN_STAGES

OPTIONAL_INPUTS = frozenset(
    {"registered_model", "truth", "published", "add_to"}
)  # the pipeline has a default


@dataclass(frozen=True)
class Entry:
    """One pipeline.

    Attributes:
        name: what a person types; also the KFP pipeline's name.
        sentence: what it does.
        stages: the stages in the order they run, as their events name them.
        inputs: parameters a person gives.
        engines: parameters that hold an engine of the configuration, as JSON.
        configs: stages whose settings are the parameter ``<stage>_config``, as JSON.
    """

    name: str
    sentence: str
    stages: tuple[str, ...]
    inputs: tuple[str, ...]
    engines: tuple[str, ...]
    configs: tuple[str, ...]

    def load(self) -> Any:
        """Import the module and return the KFP pipeline (a GraphComponent). Costs two seconds of imports."""
        return getattr(import_module(f"pipelines.{self.name}"), self.name)

    def arguments(self, config: RunConfig, given: Mapping[str, str | None]) -> dict[str, str]:
        """Return the pipeline's arguments from a run's configuration and what the person gave.

        Args:
            given: values of `inputs`; None and missing mean not given.

        Raises:
            UserError: an input is missing, or one is given that the pipeline does not take.
        """
        values = {key: value for key, value in given.items() if value is not None}
        if "base_model" in self.inputs:
            values.setdefault("base_model", config.train.base_model)
        for key in values:
            if key not in self.inputs:
                raise UserError(f"the pipeline takes no {key}", where=self.name, fix=self._inputs_sentence())
        for key in self.inputs:
            if key not in values and key not in OPTIONAL_INPUTS:
                raise UserError(f"the pipeline needs {key}", where=self.name, fix=self._inputs_sentence())
        engines = {name: getattr(config.engines, name) for name in self.engines}
        for name, spec in engines.items():
            values[name] = spec.model_dump_json() if spec is not None else ""
        for stage in self.configs:
            values[f"{stage}_config"] = getattr(config, stage).model_dump_json()
        return values

    def _inputs_sentence(self) -> str:
        return f"it takes {', '.join(self.inputs)}: give each as --input NAME=VALUE or by its own option"


_CURATE = Entry(
    name="curate",
    sentence="raw videos to de-duplicated clips and their key frames",
    stages=CURATE_STAGES,
    inputs=("source", "store", "published"),
    engines=("captioner",),
    configs=("probe", "brief", "dedup", "keyframes"),
)
_CAPTION = Entry(
    name="caption",
    sentence="key frames to differential captions, summaries and a published dataset",
    stages=CAPTION_STAGES,
    inputs=("clips", "brief_captions", "keyframes", "store", "add_to"),
    engines=("captioner", "summarizer"),
    configs=("caption", "dataset"),
)
_TRAIN = Entry(
    name="train",
    sentence="a dataset to a training mixture and a fine-tuned chat model",
    stages=TRAIN_STAGES,
    inputs=("dataset", "source", "store"),
    engines=(),
    configs=("mixture", "train"),
)
_RELEASE = Entry(
    name="release",
    sentence="evaluate, register, gate and promote a fine-tuned model",
    stages=RELEASE_STAGES,
    inputs=("trained", "base_model", "questions", "question_clips", "store", "registered_model"),
    engines=(),
    configs=("evaluate", "gate"),
)
_PARTS = (_CURATE, _CAPTION, _TRAIN, _RELEASE)
_FLYWHEEL = Entry(
    name="flywheel",
    sentence="all of them, one after another",
    stages=(*(stage for part in _PARTS for stage in part.stages), "report"),
    inputs=(
        *("source", "base_model", "questions", "question_clips", "store", "registered_model", "truth"),
        "add_to",
    ),
    engines=("captioner", "summarizer"),
    configs=tuple(dict.fromkeys(config for part in _PARTS for config in part.configs)),
)

PIPELINES = {entry.name: entry for entry in (*_PARTS, _FLYWHEEL)}


def find_pipeline(name: str) -> Entry:
    """Return the pipeline called ``name``. Raises UserError where there is none."""
    try:
        return PIPELINES[name]
    except KeyError:
        raise UserError("no such pipeline", where=name, fix=f"choose one of {', '.join(PIPELINES)}") from None
