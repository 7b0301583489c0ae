"""What fine-tuning on our own captions teaches the chat base, beside controls that must fail.

    python benchmarks/tuning.py --clips 800 --set train.epochs=6 --out benchmarks/results/tuning.json

Clips are curated, captioned and made into a mixture by the real stages with the laptop's settings, and
`nano-base` is fine-tuned on it. Then it is fine-tuned once more on the same samples with captions dealt to
the wrong clips, so that everything but what the captions say of their clip is the same. All answer the same
held-out questions (combinations never seen in training) under MVBench's protocol, and again without seeing
the clip. Intervals are 95 % bootstrap intervals over clips with all their questions, paired where models are
compared.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.bars import Bar, bars_table
from benchmarks.command import run, write_results
from benchmarks.environment import environment
from share4video.captioning.engine import identity, resolve, shared_server
from share4video.cli.options import read_settings
from share4video.config import Config, EngineSpec, RunConfig
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import load_manifest
from share4video.evaluation.bootstrap import mean_interval, paired_difference
from share4video.evaluation.results import CONTROL, RESULTS, Answer, Results, read_results
from share4video.stages.chain import Chain
from share4video.stages.contract import StageResult
from share4video.store import LocalStore
from share4video.synthetic.clips import DemoSet, write_demo_set

SEED = 11  # the demo's clips are those of seed 0; settings were tried on those of seed 7 alone
PACKAGES = ("share4video", "torch", "transformers", "peft", "numpy", "av", "pillow")
GROUPS = ("static", "temporal")
BASE, TUNED, SHUFFLED = "base", "tuned", "tuned on shuffled captions"
MIN_QUESTIONS = 400
MIN_BASE_STATIC, MAX_BASE_TEMPORAL_GAP = 0.90, 0.10
MIN_TUNED_TEMPORAL, MAX_STATIC_LOSS, MAX_FROM_CHANCE = 0.70, 0.03, 0.05

Log = Callable[[str], None]


def main(
    clips: Annotated[int, typer.Option(min=4, help="How many clips to train on.")] = 400,
    heldout: Annotated[int, typer.Option(min=1, help="How many clips to ask about.")] = 150,
    per_task: Annotated[int, typer.Option(min=1, help="At most so many questions of each task.")] = 72,
    seed: Annotated[int, typer.Option(min=0, help="Of the clips, trained on and asked about.")] = SEED,
    out: Annotated[Path | None, typer.Option(help="Where the results go, as JSON.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Keep clips and store here, and go on from what is there.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="One setting; may be repeated.")
    ] = None,
) -> None:
    """Fine-tune the base on our captions and on shuffled ones, ask all of them and print a table."""
    console = Console(stderr=True)
    config = read_settings("laptop", [*(settings or []), "evaluate.control=true"])
    with tempfile.TemporaryDirectory() if work is None else nullcontext(str(work)) as folder:
        place = Path(folder).absolute()
        made = write_demo_set(place, seed=seed, clips=clips, heldout=heldout, questions_per_task=per_task)
        results = measure(place, made, config, seed=seed, log=lambda text: console.print(text, style="dim"))
    command = " ".join(["python", "benchmarks/tuning.py", *sys.argv[1:]])
    results |= environment(PACKAGES) | {"command": command}
    for table in tables(results):
        Console().print(table)
    write_results(out, results)


def measure(
    folder: Path, made: DemoSet, config: RunConfig, *, seed: int, log: Log = lambda text: None
) -> dict[str, Any]:
    """Run the stages below ``folder`` twice, with captions in and out of place, and judge the models."""
    started = time.monotonic()
    store = LocalStore(folder / "store")
    chain = Chain(config, store)
    engines = [config.engines.captioner, config.engines.summarizer or config.engines.captioner]
    base = EngineSpec(model_path=config.train.base_model)
    local = [resolve(spec) for spec in (*engines, base) if spec.model_path is not None]
    source, questions, held = str(made.source), str(made.questions), str(made.heldout)
    results: dict[str, dict[str, Results]] = {}
    with shared_server(local):
        dataset = chain.caption(chain.curate(source)).dataset
        log("clips curated and captioned")

        def judge(name: str, model: str) -> None:
            ref = chain.evaluate(model, questions, held)
            results[name] = {kind: read_results(store, ref, kind) for kind in (RESULTS, CONTROL)}
            log(f"{name}: {results[name][RESULTS].by_group()}")

        judge(BASE, config.train.base_model)
        trained = {TUNED: chain.train(dataset, source)}
        judge(TUNED, str(trained[TUNED]))
        wrong = config.model_copy(
            update={"mixture": config.mixture.model_copy(update={"shuffle_captions": True})}
        )
        trained[SHUFFLED] = Chain(wrong, store).train(dataset, source)
        judge(SHUFFLED, str(trained[SHUFFLED]))
    return {
        "measured": "multiple-choice accuracy before and after fine-tuning on our captions",
        "clips": {
            "train": _published(store, dataset).rows_out,
            "held_out": _count_videos(made),
            "seed": seed,
        },
        "questions": len(results[BASE][RESULTS].answers),
        "engines": {spec.model_path: identity(spec) for spec in local},
        "settings": {"mixture": _plain(config.mixture), "train": _plain(config.train)},
        "training": {name: _training(store, ref) for name, ref in trained.items()},
        "models": {name: _judged(found) for name, found in results.items()},
        "tuned_minus_shuffled": _difference(results[TUNED][RESULTS], results[SHUFFLED][RESULTS]),
        "tuned_minus_base": _difference(results[TUNED][RESULTS], results[BASE][RESULTS]),
        "seconds": round(time.monotonic() - started, 1),
    }


def _plain(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _published(store: LocalStore, ref: StageRef) -> StageResult:
    return StageResult.from_manifest(load_manifest(store, ref), computed_shards=0, total_shards=1)


def _count_videos(made: DemoSet) -> int:
    return sum(1 for path in made.heldout.iterdir() if path.suffix == ".mp4")


def _training(store: LocalStore, ref: StageRef) -> dict[str, Any]:
    done = _published(store, ref)
    return {"samples": done.rows_out, **done.metrics}


def _judged(found: Mapping[str, Results]) -> dict[str, Any]:
    seen, unseen = found[RESULTS], found[CONTROL]
    judged: dict[str, Any] = {
        "unparsable": seen.unparsable,
        "unparsable_text_only": unseen.unparsable,
        "unanswered": len(seen.failures) + len(unseen.failures),
    }
    for group in GROUPS:
        judged[group] = {
            "accuracy": _accuracy(seen, group),
            "text_only": _accuracy(unseen, group),
            "chance": seen.chance(group),
        }
    return judged | {"tasks": seen.by_task(), "tasks_text_only": unseen.by_task()}


def _asked(results: Results, group: str) -> list[Answer]:
    return [answer for answer in results.answers if answer.group == group]


def _accuracy(results: Results, group: str) -> dict[str, Any]:
    asked = _asked(results, group)
    clips = [answer.video for answer in asked]
    return mean_interval([answer.right for answer in asked], clusters=clips).model_dump(mode="json")


def _difference(one: Results, other: Results) -> dict[str, Any]:
    differences = {}
    for group in GROUPS:
        others = other.right_by_id()
        both = [answer for answer in _asked(one, group) if answer.question_id in others]
        left = [answer.right for answer in both]
        right = [others[answer.question_id] for answer in both]
        clips = [answer.video for answer in both]
        differences[group] = paired_difference(left, right, clusters=clips).model_dump(mode="json")
    return differences


def tables(results: Mapping[str, Any]) -> tuple[Table, Table]:
    """Draw the accuracies, and what was to be shown."""
    scores = Table(title=f"{results['questions']} held-out questions", title_justify="left")
    for heading in ("model", "static", "text only", "temporal", "text only", "unparsable"):
        scores.add_column(
            heading, justify="left" if heading == "model" else "right", no_wrap=heading != "model"
        )
    for name, judged in results["models"].items():
        cells = [
            _interval(judged[group][kind]) if kind == "accuracy" else f"{judged[group][kind]['estimate']:.3f}"
            for group in GROUPS
            for kind in ("accuracy", "text_only")
        ]
        scores.add_row(name, *cells, str(judged["unparsable"]))
    first = results["models"][BASE]
    scores.add_row("chance", *[f"{first[g]['chance']:.3f}" if i else "" for g in GROUPS for i in (0, 1)], "")
    return scores, bars_table(bars(results))


def bars(results: Mapping[str, Any]) -> list[Bar]:
    """Return what was to be shown, with what was measured."""
    base, tuned = results["models"][BASE], results["models"][TUNED]

    def value(judged: Mapping[str, Any], group: str, kind: str = "accuracy") -> float:
        return float(judged[group][kind]["estimate"])

    apart_from_blind = abs(value(base, "temporal") - value(base, "temporal", "text_only"))
    loss = value(base, "static") - value(tuned, "static")
    worst = max(abs(value(j, g, "text_only") - j[g]["chance"]) for j in (base, tuned) for g in GROUPS)
    apart = results["tuned_minus_shuffled"]["temporal"]
    lost = {
        kind: sum(judged[kind] for judged in results["models"].values())
        for kind in ("unparsable", "unanswered")
    }
    asked = results["questions"]
    return [
        Bar("questions", float(asked), f">= {MIN_QUESTIONS}"),
        Bar("base, static", value(base, "static"), f">= {MIN_BASE_STATIC}"),
        Bar("base, temporal, from its text-only control", apart_from_blind, f"<= {MAX_BASE_TEMPORAL_GAP}"),
        Bar("tuned, temporal", value(tuned, "temporal"), f">= {MIN_TUNED_TEMPORAL}"),
        Bar("static lost by tuning", loss, f"<= {MAX_STATIC_LOSS}"),
        Bar("text-only controls, farthest from chance", worst, f"<= {MAX_FROM_CHANCE}"),
        Bar("unparsable answers", float(lost["unparsable"]), "<= 0"),
        Bar("questions without an answer", float(lost["unanswered"]), "<= 0"),
        Bar("tuned over shuffled captions, temporal, lower bound", float(apart["low"]), "> 0"),
    ]


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['estimate']:.3f} ({found['low']:.3f}-{found['high']:.3f})"


if __name__ == "__main__":
    run(main)
