"""``share4video evaluate``: ask a chat model multiple-choice questions about clips."""

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
from share4video.evaluation.results import read_results
from share4video.store import Store


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="builtin:NAME, a checkpoint folder, train/KEY@HASH or models:/NAME@ALIAS."
        ),
    ],
    questions: QuestionsOption,
    question_clips: QuestionClipsOption,
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Evaluate MODEL by MVBench's protocol and print its accuracy per task."""
    wanted = read_settings(config, settings)
    ref = run_in_process(
        "evaluate",
        ("evaluate",),
        wanted,
        store,
        lambda chain: chain.evaluate(model, absolute(questions), absolute(question_clips)),
        engines=[],
    )
    results = read_results(Store.open(store), ref)
    for task, accuracy in sorted(results.by_task().items()):
        typer.echo(f"{task:<28} {accuracy:7.1%}")
    for group, accuracy in sorted(results.by_group().items()):
        typer.echo(f"{'all ' + group:<28} {accuracy:7.1%}")
    typer.echo(f"{'all':<28} {results.accuracy:7.1%}   {results.unparsable} answers could not be read")
    print_refs({"results": ref})
