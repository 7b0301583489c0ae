"""Synthetic clips as files: H.264 mp4, the truth beside them, and what curation must catch.

FOLDER/source/*.mp4        what the pipeline is given, good and bad
FOLDER/heldout/*.mp4       clips for evaluation, never curated
FOLDER/questions/*.json    MVBench question files over ``heldout``, one per task
FOLDER/truth/*.json        the truth of every good clip
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from share4video.synthetic.questions import Question, questions_of_clip
from share4video.synthetic.render import SIDE, render_state
from share4video.synthetic.truth import write_truth
from share4video.synthetic.twins import changed_clip, reordered_clip, reversed_clip
from share4video.synthetic.world import Clip, State, sample_clip

FPS = 8
Rgb = npt.NDArray[np.uint8]
_TRAIN_SEED, _HELD_OUT_SEED = 10_000, 20_000


@dataclass(frozen=True)
class DemoSet:
    """Where ``write_demo_set`` put things."""

    source: Path
    heldout: Path
    questions: Path
    truth: Path


def frames(clip: Clip, side: int = SIDE) -> Iterator[Rgb]:
    """Yield every frame; a frame that shows what the one before showed is not drawn again."""
    last: State | None = None
    drawn: Rgb | None = None
    for index in range(round(clip.duration_s * FPS)):
        state = clip.state_at(index / FPS)
        if drawn is None or state != last:
            last, drawn = state, render_state(state, clip.seed, side)
        yield drawn


def write_mp4(path: Path, shown: Iterator[Rgb], *, fps: int = FPS, crf: int = 20) -> None:
    """Encode RGB frames as H.264; equal frames give equal bytes (one encoder thread)."""
    with av.open(str(path), "w") as container:
        stream = None
        for rgb in shown:
            if stream is None:
                stream = container.add_stream("libx264", rate=fps)
                stream.height, stream.width = rgb.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
            for packet in stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")):
                container.mux(packet)
        assert stream is not None, "a clip has at least one frame"
        for packet in stream.encode():
            container.mux(packet)


def write_clip(path: Path, clip: Clip, truth: Path | None = None) -> None:
    """Write a clip, and its truth into the folder ``truth`` under the same stem."""
    write_mp4(path, frames(clip))
    if truth is not None:
        write_truth(truth / f"{path.stem}.json", clip)


def write_demo_set(
    folder: Path, *, seed: int = 0, clips: int = 140, heldout: int = 72, questions_per_task: int = 36
) -> DemoSet:
    """Write the set the demo runs on; the same arguments give the same bytes. A finished set is kept."""
    made = DemoSet(folder / "source", folder / "heldout", folder / "questions", folder / "truth")
    recipe = json.dumps({"seed": seed, "clips": clips, "heldout": heldout, "per_task": questions_per_task})
    done = folder / "set.json"
    if done.exists() and done.read_text() == recipe:
        return made
    for place in (made.source, made.heldout, made.questions, made.truth):
        place.mkdir(parents=True, exist_ok=True)
    first = _TRAIN_SEED + 1000 * seed
    train = [(f"clip-{i:04d}", sample_clip(first + i)) for i in range(clips)]
    held = [
        (f"heldout-{i:04d}", sample_clip(_HELD_OUT_SEED + 1000 * seed + i, "combination"))
        for i in range(heldout)
    ]
    jobs = [(made.source / f"{name}.mp4", clip, made.truth) for name, clip in [*train, *_twins(train)]]
    jobs += [(made.heldout / f"{name}.mp4", clip, made.truth) for name, clip in held]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_write_job, jobs))
    write_bad_files(made.source, train[0][1])
    chosen = choose_questions([(f"{name}.mp4", clip) for name, clip in held], questions_per_task, seed)
    write_questions(made.questions, chosen)
    done.write_text(recipe)
    return made


def _write_job(job: tuple[Path, Clip, Path]) -> None:
    write_clip(*job)


def _twins(named: Sequence[tuple[str, Clip]]) -> list[tuple[str, Clip]]:
    """A twin of each kind, of the first clips that have one; curation must keep them."""
    twins: list[tuple[str, Clip]] = []
    makers: dict[str, Callable[[Clip], Clip | None]] = {
        "reversed": reversed_clip,
        "reordered": lambda clip: reordered_clip(clip, clip.seed),
        "changed": lambda clip: changed_clip(clip, clip.seed),
    }
    for kind, make in makers.items():
        for name, clip in named:
            twin = make(clip) if clip.motions else None
            if twin is not None:
                twins.append((f"{name}-{kind}", twin))
                break
    return twins


def write_bad_files(folder: Path, clip: Clip) -> None:
    """Write what curation must catch: near-duplicates of ``clip``, and files it must reject."""
    brighter = (np.clip(rgb.astype(np.int16) + 8, 0, 255).astype(np.uint8) for rgb in frames(clip))
    write_mp4(folder / "duplicate-brighter.mp4", brighter, crf=28)
    write_mp4(folder / "duplicate-reencoded.mp4", frames(clip), crf=30)
    cropped = (rgb[4:-4, 4:-4] for rgb in frames(clip))
    write_mp4(folder / "duplicate-cropped.mp4", cropped)
    state = clip.state_at(0.0)
    still = render_state(state, clip.seed)
    write_mp4(folder / "too-long.mp4", (still for _ in range(130 * 5)), fps=5, crf=35)
    write_mp4(folder / "too-short.mp4", (still for _ in range(3 * FPS)))
    black = np.zeros_like(still)
    write_mp4(folder / "black.mp4", (black for _ in range(12 * FPS)))
    whole = folder / "duplicate-reencoded.mp4"
    (folder / "truncated.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (folder / "not-a-video.mp4").write_bytes(b"This is a text file with the name of a video.\n" * 20)


def choose_questions(
    named: Sequence[tuple[str, Clip]], per_task: int, seed: int
) -> dict[str, list[tuple[str, Question]]]:
    """Choose up to ``per_task`` questions of each task, answers and letters balanced.

    Answers are taken in turn, those of one wording first where it has them all, so that knowing the task or
    the wording is worth no more than chance; then candidates are turned so that the right letter goes round.
    """
    rng = np.random.default_rng([seed, 41])
    pools: dict[str, dict[str, list[tuple[str, Question]]]] = {}
    for video, clip in named:
        for question in questions_of_clip(clip, clip.seed):
            answers = pools.setdefault(question.task, {})
            key = "either" if question.task == "order" else question.answer
            answers.setdefault(key, []).append((video, question))
    chosen: dict[str, list[tuple[str, Question]]] = {}
    for task, answers in sorted(pools.items()):
        queues = _evened(
            [[row[int(i)] for i in rng.permutation(len(row))] for _, row in sorted(answers.items())]
        )
        rounds = min(-(-per_task // len(queues)), min(len(queue) for queue in queues))
        taken = [queue[index] for index in range(rounds) for queue in queues][:per_task]
        chosen[task] = [(video, q.turned(index)) for index, (video, q) in enumerate(taken)]
    return chosen


def _evened(queues: Sequence[list[tuple[str, Question]]]) -> list[list[tuple[str, Question]]]:
    """Put the same number of questions of each wording first in each answer's queue, in the same order."""
    cells = [Counter(question.question for _, question in queue) for queue in queues]
    shared = {wording: min(cell[wording] for cell in cells) for wording in cells[0]}
    evened = []
    for queue in queues:
        seen: Counter[str] = Counter()
        ranked = []
        for row in queue:
            wording, rank = row[1].question, seen[row[1].question]
            seen[wording] += 1
            ranked.append(((rank >= shared.get(wording, 0), rank, wording), row))
        evened.append([row for _, row in sorted(ranked, key=itemgetter(0))])
    return evened


def write_questions(folder: Path, chosen: dict[str, list[tuple[str, Question]]]) -> None:
    """Write MVBench question files, one per task."""
    for task, rows in chosen.items():
        records = [
            {"video": v, "question": q.question, "candidates": list(q.candidates), "answer": q.answer}
            for v, q in rows
        ]
        (folder / f"{task}.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
