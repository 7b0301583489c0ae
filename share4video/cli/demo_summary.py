"""What the demo prints at the end: one table of what came of the clips, and what to try next."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from share4video.dataset.manifest import StageRef
from share4video.events import StageEvent
from share4video.model_registry import CHAMPION
from share4video.stages.chain import DEFAULT_MODEL_NAME
from share4video.store import Store

if TYPE_CHECKING:
    from pipelines.local import LocalRun
    from share4video.cli.demo import Answer
    from share4video.synthetic.clips import DemoSet

CURATION = ("probe", "brief", "dedup", "keyframes")
DUPLICATE_REASONS = ("near_duplicate", "exact_duplicate")
BEFORE, AFTER = "evaluate-base", "evaluate-candidate"

Row = tuple[str, str]


def summary_table(store: Store, run: LocalRun, truth: Path, answers: Sequence[Answer]) -> Table:
    """Draw the summary of a flywheel run on the demo's clips."""
    table = Table(show_header=False, title="What came of the clips", title_justify="left")
    table.add_column(style="cyan")
    table.add_column(overflow="fold")
    for name, value in summary_rows(store, run, truth, answers):
        table.add_row(name, value)
    return table


def summary_rows(store: Store, run: LocalRun, truth: Path, answers: Sequence[Answer]) -> Iterator[Row]:
    """Yield the summary as (what, value).

    Args:
        truth: folder of the clips' truth, which the captions are scored against.
    """
    from share4video.synthetic.caption_scores import score_dataset

    ended = run.finished
    yield "clips in", str(ended["probe"].rows_in)
    yield "kept", str(ended["keyframes"].rows_out)
    rejects: Counter[str] = Counter()
    for stage in CURATION:
        rejects.update(ended[stage].rejects)
    duplicates = sum(rejects.pop(reason, 0) for reason in DUPLICATE_REASONS)
    by_reason = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(rejects.items()))
    yield "rejected", by_reason or "none"
    yield "duplicates", str(duplicates)
    yield "key frames", f"{ended['keyframes'].metrics['key_frames']:.0f}"
    yield "captions", f"{ended['dataset'].metrics['captions']:.0f}"
    for role, score in score_dataset(store, StageRef.parse(run.refs["dataset"]), truth).items():
        low, high = score.f1.low, score.f1.high
        yield f"caption F1, {role}", f"{score.f1.estimate:.2f} ({low:.2f} to {high:.2f}, {score.clips} clips)"
    for group in ("static", "temporal"):
        before, after = (ended[stage].metrics.get(f"accuracy_{group}") for stage in (BEFORE, AFTER))
        if before is not None and after is not None:
            yield f"accuracy, {group}", f"{before:.1%} before tuning, {after:.1%} after"
    yield "accuracy, all", f"{_accuracy(ended[BEFORE])} before tuning, {_accuracy(ended[AFTER])} after"
    yield "gate", ended["release"].details.get("decision", "")
    for answer in answers:
        verdict = "right" if answer.right else f"wrong, it is {answer.right_answer}"
        yield f"served, {answer.task}", f"{answer.question} ({answer.video.name}) {answer.said}   {verdict}"


def _accuracy(event: StageEvent) -> str:
    return f"{event.metrics['accuracy']:.1%}"


def _program() -> str:
    """Return what starts this command line here: its name where the PATH has it, else its place."""
    own = Path(sys.argv[0])
    found = shutil.which("share4video")
    known = found is not None and own.exists() and Path(found).samefile(own)
    return "share4video" if known or own.name != "share4video" else shlex.quote(str(own))


def next_commands(store: str, run: LocalRun, made: DemoSet, answers: Sequence[Answer]) -> list[str]:
    """Return three commands that work as they stand after the demo, also where its folder is on no PATH."""
    from share4video.dataset.mixture import DESCRIBE_REQUEST

    program = _program()
    where = f"SHARE4VIDEO_STORE={shlex.quote(store)}"
    look = f"{where} {program} dataset show {run.refs['dataset']}"
    if not answers:
        questions, heldout = shlex.quote(str(made.questions)), shlex.quote(str(made.heldout))
        again = f"{program} evaluate {run.refs['train']} --questions {questions} --question-clips {heldout}"
        return [look, f"{where} {again}", f"{program} pipeline compile flywheel"]
    champion = f"models:/{DEFAULT_MODEL_NAME}@{CHAMPION}"
    clip, question = shlex.quote(str(answers[0].video)), shlex.quote(DESCRIBE_REQUEST)
    return [
        f"{where} {program} chat --model {champion} --video {clip} {question}",
        f"{where} {program} serve {champion} --port 8080",
        look,
    ]
