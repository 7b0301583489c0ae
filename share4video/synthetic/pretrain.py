"""Train the nano models from scratch: ``python -m share4video.synthetic.pretrain KIND --work DIR``.

Seeded and resumable. A dense loss on what every patch shows teaches the tower where things are long before
the language loss could; it fades out while the language model takes over.

Shape legend: B lessons, T tiles, N patches, S tokens, D width.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from share4video.synthetic import lessons, nano
from share4video.synthetic.chat_lessons import chat_lessons
from share4video.synthetic.lesson_store import (
    FIRST_BODY,
    PATCHES,
    LessonStore,
    Row,
    Size,
    displacements,
    image_size,
    write_shard,
)
from share4video.synthetic.world import COLOURS, SHAPES

SHARD_CLIPS = 100
CLIP_SEEDS = {"captioner": 1_000_000, "summarizer": 2_000_000, "chat": 3_000_000}


@dataclass(frozen=True)
class Recipe:
    """How a kind is trained: on ``tower_steps`` of the dense loss alone, then on ``steps`` of lessons.

    Of the latter the first ``text_steps`` take lessons without images. ``shares`` is how often each role is
    taken.
    """

    clips: int
    steps: int
    tower_steps: int
    batch: int
    lr: float
    shares: dict[str, float]
    text_steps: int = 0


# Roles in whose images the language model learns how far things have moved; no word for it is taught.
TELL_MOTION = ("sliding", "static", "look")
# Of the language model's four layers: what a later one is to use must stand there in an earlier one.
MOTION_LAYER, HINT_LAYER = 2, 3

# Sized for four hours on two idle cores, one process per core: the captioner on one, the summarizer and then
# the chat base (``--start-from`` the captioner's state) on the other. A captioner step takes about a second.
RECIPES: dict[nano.Kind, Recipe] = {
    "captioner": Recipe(
        clips=4000,
        steps=9000,
        tower_steps=800,
        batch=32,
        lr=1.5e-3,
        shares={"sliding": 0.80, "first": 0.08, "brief": 0.07, "fast": 0.05},
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
        clips=6000,
        steps=7000,
        tower_steps=0,
        batch=16,
        lr=1e-3,
        shares={"static": 0.4, "look": 0.35, "option": 0.25},
        text_steps=500,
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


class DenseHead(nn.Module):
    """What covers each patch, and how far away the body's centre is; used while training only.

    Bodies cover one patch in ten, so patches with and without one weigh the same.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ground = nn.Linear(width, 5)  # outside, three grounds, a body
        self.colour = nn.Linear(width, len(COLOURS))
        self.shape = nn.Linear(width, len(SHAPES))
        self.offset = nn.Linear(width, 2)
        self.seen_motion = nn.Linear(width, 2)  # of the overview tile, which shows both frames of a pair
        self.felt_motion = nn.Linear(width, 2)  # of the thing a question asks about
        self.told_motion = nn.Linear(width, 2)  # of the language model, which has read the frame before

    def loss(self, features_RND: Tensor, labels_RN3: Tensor) -> Tensor:
        kind_RN = labels_RN3[..., 0].long()
        body = kind_RN >= FIRST_BODY
        loss = F.cross_entropy(self.ground(features_RND).flatten(0, 1), kind_RN.clamp(max=4).flatten())
        if body.any():
            seen, kind = features_RND[body], kind_RN[body] - FIRST_BODY
            loss = loss + F.cross_entropy(self.colour(seen), kind // len(SHAPES))
            loss = loss + F.cross_entropy(self.shape(seen), kind % len(SHAPES))
            aim = (labels_RN3[..., 1:][body].float() - 128) / lessons.OFFSET_STEP
            loss = loss + 10 * (self.offset(seen) - aim).abs().mean()
        return loss


class Learner(nn.Module):
    """The nano model with the dense head; its forward equals the shipped model's, minus repeated work."""

    def __init__(self, kind: nano.Kind, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        super().__init__()
        self.model = nano.build_model(kind, tokenizer, seed)
        self.dense = DenseHead(nano.WIDTH)
        self.image_id = self.model.config.image_token_index

    def tower(self, tiles_RCHW: Tensor) -> Tensor:
        pixels = tiles_RCHW.float() / 127.5 - 1
        features: Tensor = self.model.model.vision_tower(pixels).last_hidden_state[:, 1:]
        return features

    def forward(self, rows: Sequence[Row], store: LessonStore) -> tuple[Tensor, Tensor, Tensor]:
        """Return the language loss, the losses that fade out, and the share of taught tokens predicted."""
        features: list[Tensor] = []
        dense = torch.zeros(())
        if rows[0].picture is not None:
            tiles = [torch.from_numpy(store.tiles(r.picture)) for r in rows if r.picture]
            labels = [torch.from_numpy(store.labels(r.picture)) for r in rows if r.picture]
            seen_RND = self.tower(torch.cat(tiles))
            dense = self.dense.loss(seen_RND, torch.cat(labels))
            told_RND = self.model.model.multi_modal_projector(seen_RND)
            start = 0
            for row, tile in zip(rows, tiles, strict=True):
                assert row.picture is not None
                flat = told_RND[start : start + len(tile)].flatten(0, 1)
                start += len(tile)
                flat = torch.cat([flat, self.model.model.image_newline[None]])
                features.append(flat[self.packing(image_size(row.picture))])
            if rows[0].role == "sliding":
                dense = dense + self._seen_motion(rows, labels, seen_RND)
        ids_BS, labels_BS = self.collate(rows, [len(f) for f in features])
        embedded = self.model.get_input_embeddings()(ids_BS)
        if features:
            where = (ids_BS == self.image_id)[..., None]
            embedded = embedded.masked_scatter(where, torch.cat(features))
        told = self.model.model.language_model(
            inputs_embeds=embedded, use_cache=False, output_hidden_states=True
        )
        hidden = told.last_hidden_state
        if features and rows[0].role in TELL_MOTION:
            dense = dense + self._told_motion(
                rows, labels, told.hidden_states[MOTION_LAYER], ids_BS == self.image_id
            )
        aside = dense + self._hints(rows, [len(f) for f in features], told.hidden_states[HINT_LAYER])
        taught = labels_BS[:, 1:] >= 0
        logits = self.model.lm_head(hidden[:, :-1][taught])
        aims = labels_BS[:, 1:][taught]
        right = (logits.argmax(-1) == aims).float().mean()
        return F.cross_entropy(logits.float(), aims), aside, right

    def _hints(self, rows: Sequence[Row], image_tokens: Sequence[int], hidden_BSD: Tensor) -> Tensor:
        """How far the language model is from knowing the answer where the question ends.

        Which letter stands for the answer is easy to learn once the answer stands at one known place.
        """
        where, words, felt, ways = [], [], [], []
        for index, row in enumerate(rows):
            extra = image_tokens[index] - 1 if image_tokens else 0  # images come before questions
            for position, word in row.hints:
                where.append(hidden_BSD[index, position + extra])
                words.append(word)
            for position, *way in row.felt:
                felt.append(hidden_BSD[index, position + extra])
                ways.append(way)
        loss = hidden_BSD.sum() * 0
        if where:
            said = self.model.lm_head(self.model.model.language_model.norm(torch.stack(where)))
            loss = loss + F.cross_entropy(said.float(), torch.tensor(words))
        if felt:
            loss = loss + 2 * (self.dense.felt_motion(torch.stack(felt)) - torch.tensor(ways)).abs().mean()
        return loss

    def _seen_motion(self, rows: Sequence[Row], labels: Sequence[Tensor], seen_RND: Tensor) -> Tensor:
        """How far the tower's features of the overview tile are from saying how each body moves."""
        losses, start = [], 0
        for row, label in zip(rows, labels, strict=True):
            assert row.picture is not None
            moved, known, _ = displacements(label.numpy(), image_size(row.picture))
            where = torch.from_numpy(known[0])
            aim = torch.from_numpy(moved[0])[where]
            losses.append((self.dense.seen_motion(seen_RND[start][where]) - aim).abs().flatten())
            start += len(label)
        return 10 * torch.cat(losses).mean() if any(len(x) for x in losses) else seen_RND.sum() * 0

    def _told_motion(
        self, rows: Sequence[Row], labels: Sequence[Tensor], hidden_BSD: Tensor, image_BS: Tensor
    ) -> Tensor:
        """The same of the language model, at every frame but the first, where it has read the one before."""
        losses = []
        for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
            assert row.picture is not None
            size = image_size(row.picture)
            moved, known, later = displacements(label.numpy(), size)
            order = self.packing(size)
            wanted = torch.cat([torch.from_numpy((known & later).ravel()), torch.zeros(1, dtype=torch.bool)])
            at = wanted[order]
            aim = torch.from_numpy(moved.reshape(-1, 2))[order[at]]
            told = hidden_BSD[index][image_BS[index]][at]
            losses.append((self.dense.told_motion(told) - aim).abs().flatten())
        return 10 * torch.cat(losses).mean() if any(len(x) for x in losses) else hidden_BSD.sum() * 0

    def collate(self, rows: Sequence[Row], image_tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Pad on the right; padding follows everything causal attention can see, so no mask is needed."""
        all_ids, all_labels = [], []
        for index, row in enumerate(rows):
            ids = row.ids.astype(np.int64)
            labels = np.where(row.supervised, ids, -100)
            if image_tokens:
                at = int(np.flatnonzero(ids == self.image_id)[0])
                ids = np.concatenate([ids[:at], np.full(image_tokens[index], self.image_id), ids[at + 1 :]])
                labels = np.concatenate([labels[:at], np.full(image_tokens[index], -100), labels[at + 1 :]])
            all_ids.append(torch.from_numpy(ids))
            all_labels.append(torch.from_numpy(labels))
        pad = torch.nn.utils.rnn.pad_sequence
        return pad(all_ids, batch_first=True), pad(all_labels, batch_first=True, padding_value=-100)

    @lru_cache(maxsize=256)  # noqa: B019  one learner lives as long as its process
    def packing(self, size: Size) -> Tensor:
        """Which patch, or the newline (last), stands at each image token of an image of this size."""
        from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

        tiles = image_size_to_num_patches(list(size), nano.PINPOINTS, nano.IMAGE_SIDE)
        count = tiles * PATCHES**2
        numbers = torch.arange(count, dtype=torch.float32).view(tiles, PATCHES**2, 1)
        newline = torch.full((1,), float(count))
        packed, _ = self.model.model.pack_image_features(
            [numbers], torch.tensor([size]), "default", image_newline=newline
        )
        order: Tensor = packed[0].view(-1).round().long()
        return order


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
        reach = max(1, int(len(pool) * min(1.0, 0.3 + 2.5 * share)))  # short lessons first
        rows = [pool[int(i)] for i in rng.integers(reach, size=recipe.batch)]
        if step < recipe.tower_steps:
            loss = _tower_loss(learner, rows, store)
            log.setdefault("tower", []).append(float(loss.detach()))
        else:
            language, dense, right = learner(rows, store)
            loss = language + 0.5 * max(0.0, 1 - lesson / (0.7 * recipe.steps)) * dense
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
