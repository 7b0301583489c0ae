"""How well the captioner tells held-out synthetic clips, role by role, beside a blind prior.

    python benchmarks/captions.py --clips 100 --out benchmarks/results/captions.json

Clips of 10 to 40 s, half of them with combinations and half with durations never seen in training, are
written as mp4 and go through the real probe, key-frame and caption stages. Two roles are also asked with
perfect inputs: a differential caption after the true caption of the frame before, and a summary of true
differential captions. A score is micro-F1 over facts that sampling shows without doubt, bound to their object
and time, matched one-to-one within one sampling interval; intervals are over resampled clips. States shorter
than 2.5 s, which sampling shows by chance, are in no score and no measure of key frames: they are told apart.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import run, write_results
from benchmarks.environment import environment
from benchmarks.true_inputs import (
    Subject,
    ask,
    differential_facts,
    differential_requests,
    summary_facts,
    summary_requests,
)
from share4video.captioning.engine import identity, resolve, shared_server
from share4video.captioning.roles import KeyFrame
from share4video.config import CaptionConfig, EngineSpec, KeyframeConfig, ProbeConfig
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.evaluation.bootstrap import Floats, sum_interval
from share4video.evaluation.captions import CaptionScore, blind_prior, score_captions
from share4video.stages import caption, keyframes, probe
from share4video.store import LocalStore, Store
from share4video.synthetic.caption_scores import JudgedClip, predicted_facts, read_facts, score_short
from share4video.synthetic.clips import write_clip
from share4video.synthetic.known_facts import known_changes, sampled_times
from share4video.synthetic.truth import read_clip, read_truth
from share4video.synthetic.world import Split, sample_clip

FIRST_SEED = 30_000
SPLITS: tuple[Split, Split] = ("combination", "duration")
# The clips are 10 to 40 s long by design; the last frame may end a little before.
PROBE = ProbeConfig(min_duration_s=9.5, max_duration_s=41.0, licence="synthetic")
# The nano models know no anchors and no parts.
CAPTION = CaptionConfig(mode="reference", summary_budget_tokens=None, fast=True, shards=1)
PACKAGES = ("share4video", "torch", "transformers", "numpy", "av", "pillow")

SLIDING, DIFFERENTIAL, SUMMARY, OWN_SUMMARY, FAST = (
    "sliding",
    "differential (true before)",
    "summary (true differentials)",
    "summary (own differentials)",
    "fast",
)
BARS = {SLIDING: 0.80, DIFFERENTIAL: 0.90, SUMMARY: 0.95}
MIN_KEY_FRAME_RECALL, MAX_KEY_FRAMES_PER_CHANGE = 0.95, 1.5

Row = Mapping[str, Any]
Log = Callable[[str], None]


def main(
    clips: Annotated[int, typer.Option(min=2, help="How many held-out clips.")] = 100,
    out: Annotated[Path | None, typer.Option(help="Where the results go, as JSON.")] = None,
    captioner: Annotated[str, typer.Option(help="builtin:NAME or a folder.")] = "builtin:nano-captioner",
    summarizer: Annotated[str, typer.Option(help="builtin:NAME or a folder.")] = "builtin:nano-summarizer",
    work: Annotated[
        Path | None, typer.Option(help="Keep clips and store here, and go on from what is there.")
    ] = None,
) -> None:
    """Measure the captioner on held-out clips and print a table."""
    console = Console(stderr=True)
    engines = [resolve(EngineSpec(model_path=path, max_in_flight=2)) for path in (captioner, summarizer)]
    with tempfile.TemporaryDirectory() if work is None else nullcontext(str(work)) as folder:
        results = measure(Path(folder), clips, *engines, log=lambda text: console.print(text, style="dim"))
    command = " ".join(["python", "benchmarks/captions.py", *sys.argv[1:]])
    results |= environment(PACKAGES) | {"command": command}
    Console().print(*tables(results))
    write_results(out, results)


def measure(
    folder: Path, clips: int, captioner: EngineSpec, summarizer: EngineSpec, *, log: Log = lambda text: None
) -> dict[str, Any]:
    """Write the clips below ``folder``, run the stages and score what came of them."""
    started = time.monotonic()
    source, truth = folder / "source", folder / "truth"
    write_clips(source, truth, clips)
    log(f"{clips} clips written")
    store = LocalStore(folder / "store")
    local = [spec for spec in (captioner, summarizer) if spec.model_path is not None]
    with shared_server(local) if local else nullcontext():
        probed = probe.run_stage(probe.ProbeInputs(str(source)), PROBE, store)
        if probed.rows_out != clips:
            raise RuntimeError(f"only {probed.rows_out} of {clips} clips are kept: {probed.rejects}")
        frame_inputs = keyframes.KeyframesInputs(probed.ref, str(source))
        framed = keyframes.run_stage(frame_inputs, KeyframeConfig(), store)
        log(f"{framed.metrics['key_frames']:.0f} key frames")
        inputs = caption.CaptionInputs(probed.ref, framed.ref, captioner, summarizer)
        captioned = caption.run_stage(inputs, CAPTION, store)
        log(f"{captioned.rows_out} clips captioned, {sum(captioned.rejects.values())} rejected")
        subjects = read_subjects(store, probed.ref, framed.ref, truth)
        judged = own_captions(store, captioned.ref, subjects)
        pairs, failed_pairs = ask(captioner, [differential_requests(s, captioner) for s in subjects])
        whole, failed_whole = ask(summarizer, [summary_requests(s, summarizer) for s in subjects])
        log("asked with true inputs")
    judged[DIFFERENTIAL] = [differential_facts(subject, pairs) for subject in subjects]
    judged[SUMMARY] = [summary_facts(subject, whole) for subject in subjects]
    scores = {
        role: {
            **_plain(score_captions(facts)),
            "blind_prior": _plain(blind_prior(facts))["f1"],
            "bar": BARS.get(role),
        }
        for role in (SLIDING, DIFFERENTIAL, SUMMARY, OWN_SUMMARY, FAST)
        if (facts := judged[role])
    }
    return {
        "measured": "caption micro-F1 on held-out synthetic clips",
        "clips": {"count": clips, "first_seed": FIRST_SEED, "splits": list(SPLITS)},
        "engines": {"captioner": identity(captioner), "summarizer": identity(summarizer)},
        "roles": scores,
        "short_states": {role: score_short(judged[role]).model_dump(mode="json") for role in scores},
        "key_frames": key_frame_scores(subjects),
        "rejected_clips": captioned.rejects,
        "fallback_captions": int(captioned.metrics["fallbacks"]),
        "failed_calls": failed_pairs + failed_whole,
        "seconds": round(time.monotonic() - started, 1),
    }


def _plain(score: CaptionScore) -> dict[str, Any]:
    return score.model_dump(mode="json")


def write_clips(source: Path, truth: Path, clips: int) -> None:
    """Write the held-out clips and their truth; those that are there stay, unless an older version's."""
    for folder in (source, truth):
        folder.mkdir(parents=True, exist_ok=True)
    numbers = [n for n in range(clips) if not _is_there(truth / f"held-{n:04d}.json")]
    jobs = [(source / f"held-{n:04d}.mp4", FIRST_SEED + n, SPLITS[n % 2], truth) for n in numbers]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_write, jobs))


def _is_there(truth: Path) -> bool:
    try:
        read_truth(truth)
    except UserError:
        return False
    return True


def _write(job: tuple[Path, int, Split, Path]) -> None:
    path, seed, split, truth = job
    write_clip(path, sample_clip(seed, split), truth)


def read_subjects(store: Store, clips: StageRef, frames: StageRef, truth: Path) -> list[Subject]:
    """Return the clips in order of their names."""
    key_frames: defaultdict[str, list[KeyFrame]] = defaultdict(list)
    for row in read_table(store, frames, "keyframes").sort_by("index").to_pylist():
        key_frames[row["clip_id"]].append(KeyFrame(row["index"] + 1, row["timestamp_s"], row["jpeg"]))
    subjects = []
    for row in read_table(store, clips, "clips").sort_by("source_uri").to_pylist():
        file = truth / f"{Path(row['source_uri']).stem}.json"
        subjects.append(Subject(row["clip_id"], read_clip(file), file, tuple(key_frames[row["clip_id"]])))
    return subjects


def own_captions(
    store: Store, captions: StageRef, subjects: Sequence[Subject]
) -> dict[str, list[JudgedClip]]:
    """Judge what the caption stage published against the whole truth; a rejected clip has said nothing."""
    sliding: defaultdict[str, list[Row]] = defaultdict(list)
    for row in read_table(store, captions, "differentials").sort_by("index").to_pylist():
        sliding[row["clip_id"]].append(row)
    whole = {(r["clip_id"], r["role"]): r for r in read_table(store, captions, "captions").to_pylist()}
    judged: dict[str, list[JudgedClip]] = {}
    for role, name in (("sliding", SLIDING), ("summary", OWN_SUMMARY), ("fast", FAST)):
        judged[name] = []
        for subject in subjects:
            own = sliding[subject.clip_id]
            said = predicted_facts(role, own, whole.get((subject.clip_id, role))) or []
            judged[name].append(JudgedClip.of(subject.clip_id, said, read_facts(subject.truth)))
    return judged


def key_frame_scores(subjects: Sequence[Subject]) -> dict[str, Any]:
    """Count the sampling intervals that end in a key frame among those with an observable change.

    Changes of short states are counted apart, and so are the key frames that are there for them alone.
    """
    rows, short_rows = [], []
    for subject in subjects:
        times_s = sampled_times(subject.clip)
        kept = {round(time_s, 3) for time_s in subject.times_s}
        sure: list[bool] = []
        lasting: list[bool] = []
        short: list[bool] = []  # whether each interval that only short states change has a key frame
        for time_s, facts in zip(times_s[1:], known_changes(subject.clip, times_s), strict=True):
            has_frame = round(time_s, 3) in kept
            rest = [fact for fact in facts if not fact.short]
            if rest:
                lasting.append(has_frame)
            elif facts:
                short.append(has_frame)
            if any(fact.observable for fact in rest):
                sure.append(has_frame)
        rows.append((sum(sure), len(sure), len(kept) - sum(short), len(lasting)))
        short_rows.append((sum(short), len(short)))

    def share(top: int, bottom: int) -> Callable[[Floats], Floats]:
        return lambda sums: sums[:, top] / np.maximum(sums[:, bottom], 1)

    return {
        "recall": sum_interval(rows, share(0, 1)).model_dump(mode="json"),
        "recall_bar": MIN_KEY_FRAME_RECALL,
        "key_frames_per_change": sum_interval(rows, share(2, 3)).model_dump(mode="json"),
        "key_frames_per_change_bar": MAX_KEY_FRAMES_PER_CHANGE,
        "observable_changes": sum(row[1] for row in rows),
        "key_frames": sum(row[2] for row in rows),
        "short_changes": sum(row[1] for row in short_rows),
        "short_changes_with_a_key_frame": sum(row[0] for row in short_rows),
    }


def tables(results: Mapping[str, Any]) -> tuple[Table, Table, Table]:
    """Draw the scores, the short states that they leave out, and the scores of the key frames."""
    scores = Table(title=f"Captions of {results['clips']['count']} held-out clips", title_justify="left")
    for heading in ("role", "F1", "95 % interval", "blind", "bar", "met"):
        scores.add_column(heading, justify="left" if heading == "role" else "right", no_wrap=True)
    for role, score in results["roles"].items():
        f1, bar = score["f1"], score["bar"]
        scores.add_row(
            role,
            f"{f1['estimate']:.3f}",
            _between(f1),
            f"{score['blind_prior']['estimate']:.3f}",
            "" if bar is None else f"{bar:.2f}",
            "" if bar is None else _met(f1["estimate"] >= bar),
        )
    short = Table(title="Facts of short states, in no score above", title_justify="left")
    for heading in ("role", "facts", "shown", "told", "recall of the shown"):
        short.add_column(heading, justify="left" if heading == "role" else "right", no_wrap=True)
    for role, own in results["short_states"].items():
        recall = "" if own["recall"] is None else f"{own['recall']:.3f}"
        short.add_row(role, str(own["facts"]), str(own["shown"]), str(own["told"]), recall)
    return scores, short, _key_frame_table(results["key_frames"])


def _key_frame_table(found: Mapping[str, Any]) -> Table:
    frames = Table(title="Key frames", title_justify="left")
    for heading in ("what", "value", "95 % interval", "bar", "met"):
        frames.add_column(heading, justify="left" if heading == "what" else "right")
    for what, words, sign in (
        ("recall", "changes with a key frame", 1),
        ("key_frames_per_change", "per change", -1),
    ):
        value, bar = found[what], found[f"{what}_bar"]
        frames.add_row(
            words,
            f"{value['estimate']:.3f}",
            _between(value),
            f"at {'least' if sign > 0 else 'most'} {bar:.2f}",
            _met(sign * value["estimate"] >= sign * bar),
        )
    shown = f"{found['short_changes_with_a_key_frame']} of {found['short_changes']}"
    frames.add_row("short ones with a key frame", shown, "", "", "")
    return frames


def _between(interval: Mapping[str, float]) -> str:
    return f"{interval['low']:.3f} to {interval['high']:.3f}"


def _met(met: bool) -> str:
    return "yes" if met else "no"


if __name__ == "__main__":
    run(main)
