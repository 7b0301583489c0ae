"""What the differential method is worth: five ways to caption the same clips with the same engine.

    python benchmarks/differential.py --clips 120 --out benchmarks/results/differential.json

| method | calls | is given |
|---|---|---|
| fast | one | all key frames at once |
| independent windows | one per four key frames | those, nothing of what came before |
| pairs without memory | one per key frame | the frame before and this one |
| differential | one per key frame | those, and the differential caption of the frame before |
| differential with anchors | one per key frame | the same, but a full description every 8 frames or 20 s |

Held-out synthetic clips go through the real probe and key-frame stages. Facts are read from the captions and
matched one-to-one with the truth within one sampling interval (micro-F1, as benchmarks/captions.py does); a
frame that is described anew may repeat what is still true. *Order accuracy*: of all pairs of true changes at
different times that a caption tells, the share told in the right order. *Tokens per correct fact* counts
prompt and answer of every call, as the server counts them, the summary's too where one is made from the
frames' captions. Clips are grouped by their number of key frames.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.captions import PROBE, Log, read_subjects, write_clips
from benchmarks.command import run, write_results
from benchmarks.environment import environment
from benchmarks.true_inputs import Subject
from share4video.captioning.client import ChatClient
from share4video.captioning.conversations import CAPTIONER, SUMMARIZER, CaptionPlan, ClipConversation
from share4video.captioning.differential import ChainRules
from share4video.captioning.engine import connect_all, identity, resolve, shared_server
from share4video.captioning.journal import open_journal
from share4video.captioning.roles import KeyFrame
from share4video.captioning.scheduler import Finished, converse
from share4video.config import CaptionConfig, EngineSpec, KeyframeConfig
from share4video.evaluation.bootstrap import Floats, Interval, sum_interval
from share4video.evaluation.captions import SAMPLING_INTERVAL_S, count_facts
from share4video.stages import keyframes, probe
from share4video.store import LocalStore
from share4video.synthetic import language
from share4video.synthetic.caption_scores import JudgedClip, read_facts

WINDOW = 4  # key frames of an independent window
LONG = CaptionConfig(anchor_every_frames=8, anchor_every_s=20)
GROUPS = ((1, 6), (7, 10), (11, 99))  # key frames of a clip
PACKAGES = ("share4video", "torch", "transformers", "numpy", "av", "pillow")

FAST, WINDOWS, PAIRS, DIFFERENTIAL, ANCHORS = (
    "fast",
    "independent windows",
    "pairs without memory",
    "differential",
    "differential with anchors",
)
# The share of clips above which one is rejected for frames without a sound caption: none, all are compared.
_ALL = ChainRules(max_fallback_share=1.0)
RULES: dict[str, ChainRules] = {
    FAST: replace(_ALL, differential=False, summary=False, fast=True),
    WINDOWS: replace(_ALL, differential=False, summary=False, fast=True),
    PAIRS: replace(_ALL, memory=False),
    DIFFERENTIAL: _ALL,
    ANCHORS: replace(_ALL, anchor_every_frames=LONG.anchor_every_frames, anchor_every_s=LONG.anchor_every_s),
}

Facts = list[language.Fact]


@dataclass
class Told:
    """What a method said of one clip.

    Attributes:
        facts: read from the frames' captions, or from the caption of all.
        summary: read from the summary; None where the method makes none.
        restated_s: when something was described anew, and may repeat what is still true.
        tokens: of prompts and answers; ``summary_tokens`` are the summary's.
    """

    facts: Facts = field(default_factory=list)
    summary: Facts | None = None
    restated_s: list[float] = field(default_factory=list)
    tokens: int = 0
    summary_tokens: int = 0


def main(
    clips: Annotated[int, typer.Option(min=2, help="How many held-out clips.")] = 120,
    out: Annotated[Path | None, typer.Option(help="Where the results go, as JSON.")] = None,
    captioner: Annotated[str, typer.Option(help="builtin:NAME or a folder.")] = "builtin:nano-captioner",
    summarizer: Annotated[str, typer.Option(help="builtin:NAME or a folder.")] = "builtin:nano-summarizer",
    work: Annotated[Path | None, typer.Option(help="Keep clips and store here.")] = None,
) -> None:
    """Caption held-out clips in five ways and print tables."""
    console = Console(stderr=True)
    engines = [resolve(EngineSpec(model_path=path, max_in_flight=2)) for path in (captioner, summarizer)]
    with tempfile.TemporaryDirectory() if work is None else nullcontext(str(work)) as folder:
        results = measure(Path(folder), clips, *engines, log=lambda text: console.print(text, style="dim"))
    command = " ".join(["python", "benchmarks/differential.py", *sys.argv[1:]])
    results |= environment(PACKAGES) | {"command": command}
    for table in tables(results):
        Console(width=120).print(table)
    write_results(out, results)


def measure(
    folder: Path, clips: int, captioner: EngineSpec, summarizer: EngineSpec, *, log: Log = lambda text: None
) -> dict[str, Any]:
    """Write the clips below ``folder``, caption them in every way and score what was said."""
    source, truth = folder / "source", folder / "truth"
    write_clips(source, truth, clips)
    store = LocalStore(folder / "store")
    probed = probe.run_stage(probe.ProbeInputs(str(source)), PROBE, store)
    framed = keyframes.run_stage(keyframes.KeyframesInputs(probed.ref, str(source)), KeyframeConfig(), store)
    subjects = read_subjects(store, probed.ref, framed.ref, truth)
    log(f"{len(subjects)} clips, {sum(len(s.frames) for s in subjects)} key frames")
    methods: dict[str, Any] = {}
    with shared_server([captioner, summarizer]):
        for name in RULES:
            begun = time.monotonic()
            told = caption(name, subjects, captioner, summarizer)
            log(f"{name}: {time.monotonic() - begun:.0f} s")
            methods[name] = scores(subjects, told) | {"seconds": round(time.monotonic() - begun, 1)}
    return {
        "measured": "five ways to caption the same held-out synthetic clips",
        "clips": len(subjects),
        "key_frames": sum(len(subject.frames) for subject in subjects),
        "engines": {"captioner": identity(captioner), "summarizer": identity(summarizer)},
        "methods": methods,
    }


def caption(
    name: str, subjects: Sequence[Subject], captioner: EngineSpec, summarizer: EngineSpec
) -> dict[str, Told]:
    """Caption every clip in one way; returns what was said by clip_id."""
    plan = replace(CaptionPlan.of(CaptionConfig(), captioner, summarizer), rules=RULES[name])
    told = {subject.clip_id: Told() for subject in subjects}
    jobs = _Jobs(name, subjects, plan)

    def done(finished: Finished) -> None:
        assert isinstance(finished.conversation, ClipConversation)
        clip_id, part = jobs.parts[finished.number]
        one = told[clip_id]
        read(one, finished.conversation, [frame.timestamp_s for frame in part])
        spent = finished.spent.counts()  # also of answers that were asked for once more
        one.tokens += sum(int(n) for name, n in spent.items() if f":{CAPTIONER}_" in name)
        one.summary_tokens += sum(int(n) for name, n in spent.items() if f":{SUMMARIZER}_" in name)

    asyncio.run(_converse(name, jobs, [captioner, summarizer], done))
    return told


class _Jobs:
    """Every clip as a conversation, or every window of one as a conversation of its own."""

    def __init__(self, name: str, subjects: Sequence[Subject], plan: CaptionPlan) -> None:
        self._plan = plan
        self.parts: list[tuple[str, tuple[KeyFrame, ...]]] = []
        for subject in subjects:
            frames = subject.frames
            size = WINDOW if name == WINDOWS else len(frames)
            for first in range(0, len(frames), size):
                part = enumerate(frames[first : first + size], 1)
                own = tuple(replace(frame, number=number) for number, frame in part)
                self.parts.append((subject.clip_id, own))
        self.weights = np.array([len(part) + 1 for _, part in self.parts], np.int32)

    def open(self, number: int) -> tuple[str, ClipConversation]:
        name = f"{self.parts[number][0]}/{number}"
        return name, ClipConversation(name, self.parts[number][1], self._plan)


async def _converse(
    name: str, jobs: _Jobs, engines: list[EngineSpec], done: Callable[[Finished], None]
) -> None:
    address = f"benchmark/{name}/{time.time_ns()}"
    with connect_all(engines) as (one, other), open_journal(address) as journal:
        async with ChatClient(one) as captioner, ChatClient(other) as summarizer:
            await converse(jobs, {CAPTIONER: captioner, SUMMARIZER: summarizer}, journal, done)
        journal.remove()


def read(told: Told, conversation: ClipConversation, times_s: Sequence[float]) -> None:
    """Add what a conversation said to what was said of its clip."""
    chain = conversation.chain
    if chain.fast is not None:
        told.facts += language.parse_fast(chain.fast.text, times_s)
        told.restated_s.append(times_s[0])
    for one in chain.differentials:
        told.facts += language.parse(one.text, one.end_s)
        if one.kind == "anchor":
            told.restated_s.append(one.end_s)
    if chain.summary is not None:
        told.summary = language.parse_summary(chain.summary.text)


def scores(subjects: Sequence[Subject], told: Mapping[str, Told]) -> dict[str, Any]:
    """Score a method on all clips and on each group of clips by number of key frames."""
    found: dict[str, Any] = {"all": _scores(subjects, told)}
    for low, high in GROUPS:
        group = [subject for subject in subjects if low <= len(subject.frames) <= high]
        if group:
            found[f"{low} to {high}" if high < 99 else f"{low} and more"] = _scores(group, told)
    return found


def _scores(subjects: Sequence[Subject], told: Mapping[str, Told]) -> dict[str, Any]:
    own = [told[subject.clip_id] for subject in subjects]
    facts = [one.facts for one in own]
    found = {"clips": len(subjects), **_level(subjects, own, facts, [one.tokens for one in own])}
    if all(one.summary is not None for one in own):
        both = [one.tokens + one.summary_tokens for one in own]
        found["summary"] = _level(subjects, own, [one.summary or [] for one in own], both)
    return found


def _level(
    subjects: Sequence[Subject], told: Sequence[Told], facts: Sequence[Facts], tokens: Sequence[int]
) -> dict[str, Any]:
    rows, orders = [], []
    for subject, one, said, spent in zip(subjects, told, facts, tokens, strict=True):
        known = read_facts(subject.truth)
        judged = JudgedClip.of(subject.clip_id, said, known)
        again = [
            fact
            for time_s in one.restated_s
            for fact in language.first_facts(subject.clip.state_at(time_s), time_s)
        ]
        ignored = (*judged.unobservable, *again)
        counts = count_facts(judged.predicted, judged.observable, ignored)
        rows.append((counts.right, counts.wrong, counts.missed, spent))
        orders.append(_order(judged))

    def micro_f1(sums: Floats) -> Floats:
        right, wrong, missed = sums[:, 0], sums[:, 1], sums[:, 2]
        both: Floats = 2 * right + wrong + missed
        return np.asarray(2 * right / both.clip(1))

    def per_fact(sums: Floats) -> Floats:
        return np.asarray(sums[:, 3] / sums[:, 0].clip(1))

    def share(sums: Floats) -> Floats:
        return np.asarray(sums[:, 0] / sums[:, 1].clip(1))

    return {
        "f1": _plain(sum_interval(rows, micro_f1)),
        "order_accuracy": _plain(sum_interval(orders, share)),
        "ordered_pairs": sum(pairs for _, pairs in orders),
        "right": sum(row[0] for row in rows),
        "wrong": sum(row[1] for row in rows),
        "missed": sum(row[2] for row in rows),
        "tokens_per_correct_fact": _plain(sum_interval(rows, per_fact)),
    }


def _order(clip: JudgedClip) -> tuple[int, int]:
    """Return how many pairs of true changes were told in the right order, and how many were told at all.

    Only facts that are true once and said once count: of others it is not known which one is meant.
    """
    true, said = (_once(facts) for facts in (clip.observable, clip.predicted))
    names = [name for name in true.keys() & said.keys() if true[name] > 0]
    pairs = [
        (true[a] - true[b]) * (said[a] - said[b])
        for a, b in combinations(sorted(names), 2)
        if abs(true[a] - true[b]) >= SAMPLING_INTERVAL_S
    ]
    return sum(product > 0 for product in pairs), len(pairs)


def _once(facts: Iterable[Any]) -> dict[tuple[str, str, str], float]:
    times: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    for fact in facts:
        times[fact.object, fact.predicate, fact.value].append(fact.time_s)
    return {name: found[0] for name, found in times.items() if len(found) == 1}


def _plain(interval: Interval) -> dict[str, float]:
    return {name: round(value, 4) for name, value in interval.model_dump().items()}


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Draw one table per group of clips."""
    drawn = []
    for group in next(iter(results["methods"].values())):
        if group == "seconds":
            continue
        title = "all clips" if group == "all" else f"clips of {group} key frames"
        table = Table(title=title, title_justify="left")
        for heading in ("method", "F1", "95 %", "order", "tokens per fact", "F1 of the summary", "its order"):
            table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
        for name, method in results["methods"].items():
            own = method[group]
            whole = own.get("summary")
            table.add_row(
                name,
                f"{own['f1']['estimate']:.3f}",
                f"{own['f1']['low']:.3f} to {own['f1']['high']:.3f}",
                f"{own['order_accuracy']['estimate']:.3f}",
                f"{own['tokens_per_correct_fact']['estimate']:.0f}",
                "" if whole is None else f"{whole['f1']['estimate']:.3f}",
                "" if whole is None else f"{whole['order_accuracy']['estimate']:.3f}",
            )
        drawn.append(table)
    return drawn


if __name__ == "__main__":
    run(main)
