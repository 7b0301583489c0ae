"""Sliding lessons that tell the captioner what it said itself of the pair before.

At work it is given its own captions, with its own mistakes, which are others than those `lessons.corrupt`
makes up. Late in training it captions some shards, and each caption becomes what the next lesson says
happened before.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from share4video.captioning.sharecaptioner import HAPPENED_BEFORE
from share4video.synthetic.lesson_store import LessonStore, Row, image_size, own_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from share4video.synthetic.learner import Learner

ROLE = "sliding"
BATCH = 32
MAX_TOKENS = 96  # the longest sliding target has about 60


def write_own_lessons(
    learner: Learner, store: LessonStore, shard: int, tokenizer: PreTrainedTokenizerFast
) -> Path:
    """Caption a shard's pairs and write its sliding lessons over, with the captions in them.

    The lessons of a clip stand in order of time in a shard; the first of each keeps what it is given.
    """
    lessons = [x for x in json.loads((store.folder / f"{shard:05d}.json").read_text()) if x["role"] == ROLE]
    rows = [store.tokenise(ROLE, (shard, *lesson["picture"]), lesson["turns"]) for lesson in lessons]
    said = caption(learner, store, rows, tokenizer)
    written = []
    for lesson, before in zip(lessons[1:], said, strict=False):
        (speaker, prompt, felt), *answer = lesson["turns"]
        asked, mark, _ = prompt.partition(HAPPENED_BEFORE)
        if "Video frame 1 at" not in asked:
            written.append({**lesson, "turns": [[speaker, asked + mark + before, felt], *answer]})
    path = own_file(store.folder, shard)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(written))
    part.rename(path)
    return path


@torch.no_grad()  # not inference mode: what the learner caches is used in training too
def caption(
    learner: Learner, store: LessonStore, rows: list[Row], tokenizer: PreTrainedTokenizerFast
) -> list[str]:
    """Return what the learner answers to each lesson's prompt, decoded greedily."""
    model: Any = learner.model
    said = [""] * len(rows)
    alike: dict[str, list[int]] = defaultdict(list)  # images of one size have as many tiles
    for index, row in enumerate(rows):
        assert row.picture is not None
        alike[row.picture[1]].append(index)
    model.eval()
    for indices in alike.values():
        indices.sort(key=lambda i: len(rows[i].ids))
        for start in range(0, len(indices), BATCH):
            chosen = indices[start : start + BATCH]
            inputs = _prompts(learner, store, [rows[i] for i in chosen])
            out = model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
            texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for index, text in zip(chosen, texts, strict=True):
                said[index] = text.strip()
    model.train()
    return said


def _prompts(learner: Learner, store: LessonStore, rows: list[Row]) -> dict[str, torch.Tensor]:
    """Return the model's inputs up to where it answers, padded on the left."""
    prompts, tiles, sizes = [], [], []
    for row in rows:
        assert row.picture is not None
        size = image_size(row.picture)
        ids = row.ids[: int(np.flatnonzero(row.supervised)[0])].astype(np.int64)
        image = np.full(len(learner.packing(size)), learner.image_id)
        at = int(np.flatnonzero(ids == learner.image_id)[0])
        prompts.append(np.concatenate([ids[:at], image, ids[at + 1 :]]))
        tiles.append(torch.from_numpy(store.tiles(row.picture)).float() / 127.5 - 1)
        sizes.append(size)
    longest = max(len(ids) for ids in prompts)
    input_ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for index, ids in enumerate(prompts):
        input_ids[index, longest - len(ids) :] = torch.from_numpy(ids)
        mask[index, longest - len(ids) :] = 1
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        "pixel_values": torch.stack(tiles),
        "image_sizes": torch.tensor(sizes),
    }
