"""``share4video promote``: register a fine-tuned model, and put it in service where the gate lets it."""

from __future__ import annotations

from typing import Annotated

import typer

from share4video.cli.options import (
    DEFAULT_STORE,
    ConfigOption,
    QuestionClipsOption,
    QuestionsOption,
    SetOption,
    StoreOption,
    absolute,
    read_settings,
)
from share4video.cli.printing import print_refs
from share4video.cli.runs import run_in_process
from share4video.config import EngineSpec
from share4video.dataset.manifest import StageRef
from share4video.stages.chain import DEFAULT_MODEL_NAME, RELEASE_STAGES


def promote(
    trained: Annotated[str, typer.Argument(metavar="MODEL", help="What train published, as train/KEY@HASH.")],
    questions: QuestionsOption,
    question_clips: QuestionClipsOption,
    name: Annotated[str, typer.Option("--name", help="The registered model.")] = DEFAULT_MODEL_NAME,
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Evaluate MODEL and its base, register it, and move the alias champion if the gate passes."""
    wanted = read_settings(config, settings)
    model = StageRef.parse(trained)
    result = run_in_process(
        "promote",
        RELEASE_STAGES,
        wanted,
        store,
        lambda chain: chain.release(model, absolute(questions), absolute(question_clips), name),
        engines=[EngineSpec(model_path=wanted.train.base_model)],
    )
    typer.echo(result.sentence())
    print_refs({"decision": result.ref})
