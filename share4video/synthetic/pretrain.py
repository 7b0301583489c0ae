"""Train the nano models from scratch: ``python -m share4video.synthetic.pretrain KIND --work DIR``.

Seeded and resumable. A dense loss on what every patch shows teaches the tower where things are long before
the language loss could; it fades out while the language model takes over.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from share4video.synthetic import lessons, nano
from share4video.synthetic.chat_lessons import chat_lessons
from share4video.synthetic.learner import Learner
from share4video.synthetic.lesson_store import LessonStore, Row, own_file, write_shard
from share4video.synthetic.own_captions import ROLE, write_own_lessons

if TYPE_CHECKING:
    from transformers import LlavaNextProcessor

SHARD_CLIPS = 100
CLIP_SEEDS = {"captioner": 1_000_000, "summarizer": 2_000_000, "chat": 3_000_000}


@dataclass(frozen=True)
class Recipe:
    """How a kind is trained: on ``tower_steps`` of the dense loss alone, then on ``steps`` of lessons.

    Of the latter the first ``text_steps`` take lessons without images. ``shares`` is how often each role is
    taken. The dense loss fades to ``dense_left`` of its weight, so that what no word asks for yet stays.
    In the last ``own_steps`` of all, half of the sliding lessons come from ``own_shards`` shards that the
    learner has captioned itself.
    """

    clips: int
    steps: int
    tower_steps: int
    batch: int
    lr: float
    shares: dict[str, float]
    text_steps: int = 0
    dense_left: float = 0.0
    own_steps: int = 0
    own_shards: int = 0


# Sized for four hours on two idle cores, one process per core: the summarizer beside the captioner, and then
# the chat base, which starts from the captioner's state. A step of captioner or chat takes about a second.
RECIPES: dict[nano.Kind, Recipe] = {
    "captioner": Recipe(
        clips=4000,
        steps=5600,
        tower_steps=800,
        batch=32,
        lr=1.5e-3,
        shares={"sliding": 0.80, "first": 0.08, "brief": 0.07, "fast": 0.05},
        own_steps=1000,
        own_shards=8,
    ),
    "summarizer": Recipe(
        clips=8000,
        steps=6000,
        tower_steps=0,
        batch=16,
        lr=2e-3,
        shares={"summary": 0.9, "recaption": 0.1},
    ),
    "chat": Recipe(
        clips=8000,
        steps=5400,
        tower_steps=0,
        batch=16,
        lr=1e-3,
        shares={"static": 0.5, "look": 0.38, "option": 0.12},
        text_steps=500,
        dense_left=0.6,
    ),
}


def prepare(kind: nano.Kind, folder: Path, clips: int) -> list[int]:
    """Write the shards that are missing and return their numbers."""
    processor = nano.load_processor(folder.parent / "processor")
    shards = list(range(math.ceil(clips / SHARD_CLIPS)))
    for shard in shards:
        if (folder / f"{shard:05d}.json").exists():
            continue
        pictures: list[lessons.Picture] = []
        taught: list[lessons.Lesson] = []
        first = CLIP_SEEDS[kind] + shard * SHARD_CLIPS
        for seed in range(first, first + SHARD_CLIPS):
            shown, said = _lessons(kind, seed)
            offset = len(pictures)
            pictures += shown
            taught += [
                lessons.Lesson(x.role, x.picture + offset if x.picture is not None else None, x.turns)
                for x in said
            ]
        write_shard(folder, shard, pictures, taught, processor)
        print(json.dumps({"prepared": shard, "pictures": len(pictures), "lessons": len(taught)}), flush=True)
    return shards


def _lessons(kind: nano.Kind, seed: int) -> tuple[list[lessons.Picture], list[lessons.Lesson]]:
    if kind == "summarizer":
        return [], lessons.summarizer_lessons(seed)
    return lessons.captioner_lessons(seed) if kind == "captioner" else chat_lessons(seed)


def train(
    kind: nano.Kind,
    work: Path,
    folder: Path,
    shards: Sequence[int],
    recipe: Recipe,
    seed: int,
    start_from: Path | None = None,
    stop_after: int | None = None,
) -> Learner:
    """Train from the newest state in ``work``; every 250 steps, and at the end, the state is saved.

    ``stop_after`` ends this call at that step of the recipe's schedule; the next goes on from there.

    ``start_from`` is the saved state of another kind of the same shape, whose weights a new run starts from.
    """
    processor = nano.load_processor(work / "processor")
    store = LessonStore(folder, shards, processor)
    learner = Learner(kind, processor.tokenizer, seed)
    groups = [
        {"params": [p for p in learner.parameters() if p.ndim >= 2], "weight_decay": 0.02},
        {"params": [p for p in learner.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98))
    state_path = work / f"{kind}.pt"
    start = 0
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        learner.load_state_dict(state["learner"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    elif start_from is not None:
        learner.load_state_dict(torch.load(start_from, weights_only=True)["learner"], strict=False)
    total = recipe.tower_steps + recipe.steps
    own_from = total - recipe.own_steps
    if start < own_from:  # what an earlier run has captioned is not its own
        for shard in shards[: recipe.own_shards]:
            own_file(folder, shard).unlink(missing_ok=True)
    for pool in store.rows.values():
        pool.sort(key=lambda row: len(row.ids))
    names = [name for name in recipe.shares if store.rows[name]]
    blind = [name for name in names if store.rows[name][0].picture is None]
    began = time.time()
    log: dict[str, list[float]] = {}
    end = min(total, stop_after or total)
    for step in range(start, end):
        rng = np.random.default_rng([seed, step])
        share = step / total
        rate = recipe.lr * min(1.0, (step + 1) / 200) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        lesson = step - recipe.tower_steps
        among = blind if blind and 0 <= lesson < recipe.text_steps else names
        shares = np.array([recipe.shares[name] for name in among])
        name = str(rng.choice(among, p=shares / shares.sum()))
        pool = store.rows[name]
        if step >= own_from:
            if not store.own:
                _learn_from_itself(learner, store, shards[: recipe.own_shards], processor)
            if name == ROLE and rng.random() < 0.5:
                pool = store.own
        reach = max(1, int(len(pool) * min(1.0, 0.3 + 2.5 * share)))  # short lessons first
        rows = [pool[int(i)] for i in rng.integers(reach, size=recipe.batch)]
        if step < recipe.tower_steps:
            loss = _tower_loss(learner, rows, store)
            log.setdefault("tower", []).append(float(loss.detach()))
        else:
            language, dense, right = learner(rows, store)
            loss = language + 0.5 * max(recipe.dense_left, 1 - lesson / (0.7 * recipe.steps)) * dense
            log.setdefault(name, []).append(float(language.detach()))
            log.setdefault(name + "_right", []).append(float(right))
            log.setdefault("dense", []).append(float(dense.detach()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0:
            means = {key: round(float(np.mean(values)), 4) for key, values in log.items()}
            print(
                json.dumps({"step": step + 1, "of": total, "s": round(time.time() - began), **means}),
                flush=True,
            )
            log = {}
        if (step + 1) % 250 == 0 or step + 1 == end:
            part = state_path.with_suffix(".part")
            state = {"learner": learner.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, part)
            part.rename(state_path)
    return learner


def _learn_from_itself(
    learner: Learner, store: LessonStore, shards: Sequence[int], processor: LlavaNextProcessor
) -> None:
    """Read the lessons that hold the learner's own captions; make those that no run before has made."""
    for shard in shards:
        if not own_file(store.folder, shard).exists():
            write_own_lessons(learner, store, shard, processor.tokenizer)
            print(json.dumps({"captioned": shard}), flush=True)
        store.read_own(shard)
    store.own.sort(key=lambda row: len(row.ids))


def _tower_loss(learner: Learner, rows: Sequence[Row], store: LessonStore) -> Tensor:
    tiles = [torch.from_numpy(store.tiles(r.picture)) for r in rows if r.picture]
    labels = [torch.from_numpy(store.labels(r.picture)) for r in rows if r.picture]
    return learner.dense.loss(learner.tower(torch.cat(tiles)), torch.cat(labels))


app = typer.Typer(add_completion=False)


@app.command()
def main(
    kind: nano.Kind,
    work: Annotated[Path, typer.Option(help="Where lessons and training state are kept.")],
    out: Annotated[Path | None, typer.Option(help="Where the finished checkpoint goes.")] = None,
    clips: int | None = None,
    steps: int | None = None,
    tower_steps: int | None = None,
    text_steps: int | None = None,
    start_from: Annotated[Path | None, typer.Option(help="State of another kind to start from.")] = None,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Make the lessons of a nano model, train it and write the checkpoint."""
    torch.set_num_threads(threads)
    recipe = RECIPES[kind]
    recipe = replace(
        recipe,
        clips=recipe.clips if clips is None else clips,
        steps=recipe.steps if steps is None else steps,
        tower_steps=recipe.tower_steps if tower_steps is None else tower_steps,
        text_steps=recipe.text_steps if text_steps is None else text_steps,
    )
    nano.save_processor(work / "processor")
    shards = prepare(kind, work / kind, recipe.clips)
    learner = train(kind, work, work / kind, shards, recipe, seed, start_from)
    if out is not None:
        nano.save_checkpoint(learner.model, nano.load_processor(work / "processor"), out)


if __name__ == "__main__":
    app()
