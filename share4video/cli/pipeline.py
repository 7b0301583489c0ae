"""``share4video pipeline run|compile|submit``: the pipelines as Kubeflow Pipelines runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from share4video.cli.options import (
    DEFAULT_STORE,
    ConfigOption,
    EngineOption,
    PromptsOption,
    SetOption,
    StoreOption,
    absolute,
    make_folder,
    read_settings,
    source_parameter,
)
from share4video.cli.runs import RUNS_FOLDER, check_engines, pipeline_engines, run_as_pipeline
from share4video.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Run a pipeline here, compile it, or submit it to a cluster.")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="curate, caption, train, release or flywheel.")
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source", metavar="SOURCE", help="What `share4video curate` takes as a source; may be repeated."
    ),
]
QuestionsOption = Annotated[
    str | None, typer.Option("--questions", metavar="PATH", help="Questions in MVBench's JSON format.")
]
QuestionClipsOption = Annotated[
    str | None, typer.Option("--question-clips", metavar="DIR", help="The videos the questions are about.")
]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME=VALUE", help="Any input of the pipeline; may be repeated."),
]


@app.command("run")
def run(
    name: NameArgument,
    source: SourceOption = None,
    questions: QuestionsOption = None,
    question_clips: QuestionClipsOption = None,
    inputs: InputOption = None,
    store: StoreOption = DEFAULT_STORE,
    engine: EngineOption = None,
    prompts: PromptsOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    local: Annotated[
        bool, typer.Option("--local", help="Run on this machine, with KFP's local runner.")
    ] = False,
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where logs are kept.")] = RUNS_FOLDER,
    budget_s: Annotated[float | None, typer.Option(help="How long it should take; shown.")] = None,
) -> None:
    """Run a pipeline on this machine and print what every stage published."""
    from pipelines.catalogue import find_pipeline

    entry = find_pipeline(name)
    if not local:
        raise UserError(
            "nothing says where to run",
            where=name,
            fix="add --local for this machine, or use share4video pipeline submit --host URL for a cluster",
        )
    wanted = read_settings(config, settings, engine=engine, prompts=prompts)
    sources = source_parameter(source, wanted) if source else None
    given = _given(sources, questions, question_clips, inputs, absolute(store))
    done = run_as_pipeline(entry, entry.arguments(wanted, given), wanted, runs=runs, budget_s=budget_s)
    for stage, ref in done.refs.items():
        typer.echo(f"{stage:<20} {ref}" + ("  unchanged" if done.finished[stage].reused else ""))
    if "report" in done.finished:
        typer.echo(f"{'report':<20} {done.finished['report'].label}")
    if done.unchanged:
        typer.echo("Nothing changed: every stage had published this already.")


@app.command("compile")
def compile_(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The pipeline.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Compile every pipeline.")] = False,
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="IMAGE", help="The image every task runs in, best by digest."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder for NAME.yaml.")] = Path(
        "."
    ),
) -> None:
    """Write the compiled pipeline that Kubeflow Pipelines takes."""
    from components.image import PLACEHOLDER_IMAGE
    from pipelines.catalogue import PIPELINES, find_pipeline
    from pipelines.compiler import compile_pipeline

    if (name is None) != every:
        raise UserError("name one pipeline or say --all", fix=f"the pipelines are {', '.join(PIPELINES)}")
    names = list(PIPELINES) if name is None else [find_pipeline(name).name]
    make_folder(out)
    for each in names:
        target = out / f"{each}.yaml"
        target.write_text(compile_pipeline(each, image or PLACEHOLDER_IMAGE), encoding="utf-8")
        typer.echo(str(target))


@app.command("submit")
def submit(
    name: NameArgument,
    host: Annotated[str, typer.Option("--host", metavar="URL", help="The Kubeflow Pipelines API.")],
    image: Annotated[str, typer.Option("--image", metavar="IMAGE", help="The image every task runs in.")],
    source: SourceOption = None,
    questions: QuestionsOption = None,
    question_clips: QuestionClipsOption = None,
    inputs: InputOption = None,
    store: StoreOption = DEFAULT_STORE,
    engine: EngineOption = None,
    prompts: PromptsOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    namespace: Annotated[
        str | None, typer.Option(help="The profile's namespace, where there are several.")
    ] = None,
    experiment: Annotated[str, typer.Option(help="The experiment the run is listed under.")] = "share4video",
) -> None:
    """Upload a pipeline as a new version where it changed, and start a run of it on a cluster."""
    from pipelines.catalogue import find_pipeline
    from pipelines.submit import submit_pipeline

    entry = find_pipeline(name)
    if not store.startswith("s3://"):
        raise UserError(
            "a cluster cannot reach this store", where=store, fix="give --store s3://BUCKET/PREFIX"
        )
    for place in (*(source or ()), questions, question_clips):
        if place and not place.startswith("/") and "://" not in place:
            raise UserError(
                "a cluster does not see this folder",
                where=place,
                fix="give the absolute path at which the pods have it",
            )
    wanted = read_settings(config, settings, engine=engine, prompts=prompts)
    check_engines(entry.stages, wanted, pipeline_engines(entry, wanted))
    sources = source_parameter(source, wanted) if source else None
    given = _given(sources, questions, question_clips, inputs, store)
    arguments = entry.arguments(wanted, given)
    submitted = submit_pipeline(
        name,
        arguments,
        host=host,
        image=image,
        pipeline_root=store,
        namespace=namespace,
        experiment=experiment,
    )
    typer.echo(submitted)


def _given(
    source: str | None,
    questions: str | None,
    question_clips: str | None,
    inputs: list[str] | None,
    store: str,
) -> dict[str, str | None]:
    given: dict[str, str | None] = {
        "source": source,
        "questions": questions and absolute(questions),
        "question_clips": question_clips and absolute(question_clips),
        "store": store,
    }
    for text in inputs or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UserError("not an input", where=text, fix="write --input NAME=VALUE")
        given[key] = value
    return given
