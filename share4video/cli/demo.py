"""``share4video demo``: the whole flywheel on synthetic clips, on this machine, and what came of it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from share4video.cli.demo_summary import next_commands, summary_table
from share4video.cli.options import read_settings
from share4video.cli.runs import engines_running, new_run_folder, pipeline_engines
from share4video.cli.view import RunView
from share4video.config import RunConfig
from share4video.events import Emit
from share4video.model_registry import CHAMPION
from share4video.stages.chain import DEFAULT_MODEL_NAME
from share4video.stages.task import stage_task
from share4video.store import Store

if TYPE_CHECKING:
    from pipelines.local import LocalRun
    from share4video.evaluation.questions import Question
    from share4video.synthetic.clips import DemoSet

BUDGET_S = 360.0
MAX_ANSWER_TOKENS = 64


@dataclass(frozen=True)
class Answer:
    """What the served model said about a held-out clip, the right answer, and whether it is the one."""

    video: Path
    task: str
    question: str
    said: str
    right_answer: str
    right: bool


def demo(
    folder: Annotated[
        Path, typer.Option("--folder", metavar="DIR", help="Where clips, store and report go.")
    ] = Path("share4video-demo"),
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="S", help="The store; default: a folder below --folder."),
    ] = None,
    clips: Annotated[
        int, typer.Option("--clips", min=4, max=10_000, help="How many clips to make and learn from.")
    ] = 140,
    heldout: Annotated[
        int, typer.Option("--heldout", min=4, max=10_000, help="How many further clips to ask about.")
    ] = 120,
    budget_s: Annotated[float, typer.Option("--budget-s", help="How long it should take; shown.")] = BUDGET_S,
    config: Annotated[
        str, typer.Option("--config", "-c", metavar="FILE", help="A YAML file of settings, or a preset.")
    ] = "laptop",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="One setting; may be repeated.")
    ] = None,
) -> None:
    """Make clips, run the flywheel on them, serve the champion, ask it questions, write a report."""
    from pipelines.catalogue import find_pipeline

    wanted = read_settings(config, settings)
    entry = find_pipeline("flywheel")
    root = store or str((folder / "store").absolute())
    opened = Store.open(root)
    view = RunView("share4video demo", ("clips", *entry.stages, "answer"), budget_s=budget_s)
    with view, engines_running(pipeline_engines(entry, wanted)):
        made = _make_clips(folder, clips, heldout, opened, view.handle)
        run = _run_flywheel(made, root, wanted, folder, view.handle)
        answers = _ask_champion(made, opened, view.handle)
    report = folder / "report.html"
    shutil.copyfile(run.finished["report"].label, report)
    console = Console()
    console.print(summary_table(opened, run, made.truth, answers))
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
    if run.unchanged:
        console.print("Nothing changed: every stage had published this already.")
    console.print("try next:")
    for command in next_commands(root, run, made, answers):
        console.print(f"  {command}", highlight=False, markup=False, soft_wrap=True)


def _make_clips(folder: Path, clips: int, heldout: int, store: Store, emit: Emit) -> DemoSet:
    from share4video.synthetic.clips import write_demo_set

    with stage_task("clips", store, emit=emit) as task:
        made = write_demo_set(
            folder.absolute(), clips=clips, heldout=heldout, questions_per_task=heldout // 2
        )
        task.done(f"{sum(1 for _ in made.source.iterdir())} files, good and bad")
    return made


def _run_flywheel(made: DemoSet, store: str, config: RunConfig, folder: Path, emit: Emit) -> LocalRun:
    from pipelines.catalogue import find_pipeline
    from pipelines.local import run_local

    entry = find_pipeline("flywheel")
    given = {
        "source": str(made.source),
        "questions": str(made.questions),
        "question_clips": str(made.heldout),
        "store": store,
        "truth": str(made.truth),
    }
    arguments = entry.arguments(config, given)
    return run_local(entry.name, arguments, new_run_folder(folder / "runs", entry.name), on_event=emit)


def _ask_champion(made: DemoSet, store: Store, emit: Emit) -> list[Answer]:
    """Serve the champion through the gateway and ask it a question of each task; none was promoted: none."""
    from serving.gateway.process import serve_model
    from share4video.chat import Conversation
    from share4video.decoding import Decoding
    from share4video.evaluation.mvbench import (
        BRACKET,
        PREFILL,
        SYSTEM,
        parse_answer,
        question_block,
        right_reply,
    )
    from share4video.model_registry import ModelRegistry, store_root
    from share4video.training import tracking

    with stage_task("answer", store, emit=emit) as task:
        champion = ModelRegistry(DEFAULT_MODEL_NAME, tracking.configure(store_root(store))).champion()
        if champion is None:
            task.done("no model was promoted, so none is served")
            return []
        short = Decoding(MAX_ANSWER_TOKENS)
        answers, opening = [], PREFILL.removesuffix(BRACKET)
        with serve_model(f"models:/{DEFAULT_MODEL_NAME}@{CHAMPION}", store=store) as gateway:
            for asked in _first_of_each_task(made):
                video = made.heldout / asked.video
                talk = Conversation(gateway.url, str(video), system=SYSTEM)
                said = "".join(talk.ask(question_block(asked), short)).strip()
                letter = parse_answer(said.removeprefix(opening), len(asked.candidates))
                answer = right_reply(asked).removeprefix(opening)
                right = letter == asked.answer_letter
                answers.append(Answer(video, asked.task, asked.question, said, answer, right))
        task.done(f"{sum(answer.right for answer in answers)} of {len(answers)} questions answered right")
    return answers


def _first_of_each_task(made: DemoSet) -> list[Question]:
    from share4video.evaluation.questions import read_questions

    first: dict[str, Question] = {}
    for question in read_questions(made.questions):
        first.setdefault(question.task, question)
    return list(first.values())
