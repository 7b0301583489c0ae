"""Synthetic clips as files: H.264 mp4, the truth beside them, and what curation must catch.

FOLDER/source/*.mp4        what the pipeline is given, good and bad
FOLDER/heldout/*.mp4       clips for evaluation, never curated
FOLDER/questions/*.json    MVBench question files over ``heldout``, one per task
FOLDER/truth/*.json        the truth of every good clip
FOLDER/set.json            what the set was made of, written last: without it the set is made again
FOLDER/.made-by-share4video  written first: the set may take its own files away again
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

from share4video.errors import UserError
from share4video.synthetic.questions import TASK_GROUPS, Question, questions_of_clip
from share4video.synthetic.render import SIDE, render_state
from share4video.synthetic.truth import write_truth
from share4video.synthetic.twins import changed_clip, reordered_clip, reversed_clip
from share4video.synthetic.whole_file import PARTIAL, whole_file
from share4video.synthetic.world import FPS, Clip, State, sample_clip

Rgb = npt.NDArray[np.uint8]
_TRAIN_SEED, _HELD_OUT_SEED = 10_000, 20_000
_FORMAT = 3  # of the truth files and questions; a set of another format is made again
_OWNED = ".made-by-share4video"
_BAD_FILES = (
    "duplicate-brighter.mp4",
    "duplicate-reencoded.mp4",
    "duplicate-cropped.mp4",
    "too-long.mp4",
    "too-short.mp4",
    "black.mp4",
    "truncated.mp4",
    "not-a-video.mp4",
)
# The names a set uses in each of its folders; no other file there is ever removed.
_NAMES = {
    "source": ("clip-[0-9][0-9][0-9][0-9]*.mp4", *_BAD_FILES),
    "heldout": ("heldout-[0-9][0-9][0-9][0-9]*.mp4",),
    "questions": tuple(f"{task}.json" for task in TASK_GROUPS),
    "truth": ("clip-[0-9][0-9][0-9][0-9]*.json", "heldout-[0-9][0-9][0-9][0-9]*.json"),
}


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
    """Encode RGB frames as H.264; equal frames give equal bytes (one encoder thread).

    The file appears under its name once it is whole.
    """
    with whole_file(path) as partial, av.open(str(partial), "w") as container:
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
    folder: Path, *, seed: int = 0, clips: int = 140, heldout: int = 120, questions_per_task: int = 60
) -> DemoSet:
    """Write the set the demo runs on; the same arguments give the same bytes. A finished set is kept.

    Another set in the folder, or one that was not finished, is replaced.

    Raises:
        UserError: the folder holds files that no set left there, or cannot be written.
    """
    made = DemoSet(*(folder / name for name in _NAMES))
    wanted = {"seed": seed, "clips": clips, "heldout": heldout, "per_task": questions_per_task}
    recipe = json.dumps({**wanted, "format": _FORMAT})
    done = folder / "set.json"
    if done.is_file() and done.read_text() == recipe:
        return made
    try:
        _make_room(folder, done)
    except OSError as error:
        raise UserError(
            f"the clips cannot be written: {error.strerror}",
            where=str(error.filename or folder),
            fix="name a folder that can be written",
        ) from error
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
    with whole_file(done) as partial:
        partial.write_text(recipe)
    return made


def _make_room(folder: Path, done: Path) -> None:
    """Make the set's folders and empty them of what an earlier set, finished or not, left there."""
    owned = folder / _OWNED
    ours = owned.exists() or done.exists()
    for name in _NAMES:
        place = folder / name
        if not ours and place.is_dir() and any(place.iterdir()):
            raise UserError(
                "this folder holds files that no earlier set of clips is known to have left",
                where=str(place),
                fix="name another folder, or move them away",
            )
    folder.mkdir(parents=True, exist_ok=True)
    owned.write_text(f"The set of clips beside this file may remove its own files in {', '.join(_NAMES)}.\n")
    done.unlink(missing_ok=True)  # from here on the set is not finished
    for name, patterns in _NAMES.items():
        place = folder / name
        place.mkdir(exist_ok=True)
        for pattern in (*patterns, f"{PARTIAL}*"):
            for file in place.glob(pattern):
                file.unlink()


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
    the wording is worth no more than chance; then candidates are turned so that the right letter goes round,
    for each answer by itself: where an answer had a letter of its own, the order of the candidates would tell
    which of them is right.
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
        turns = (sum(divmod(index, len(queues))) for index in range(len(taken)))
        chosen[task] = [(video, q.turned(turn)) for turn, (video, q) in zip(turns, taken, strict=True)]
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
