"""A nano model as it learns: with heads for losses that say more than words do, which are then thrown away.

The dense losses tell the tower and the language model what stands where and how it moves; hints tell the
language model the answer where a question ends. All of them fade out while training.

Shape legend: B lessons, R tiles of all lessons, T tiles, N patches, S tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from share4video.synthetic import lessons, nano
from share4video.synthetic.lesson_store import (
    FIRST_BODY,
    PATCHES,
    LessonStore,
    Row,
    Size,
    image_size,
    motion,
)
from share4video.synthetic.world import COLOURS, DIRECTIONS, SHAPES

GRID_FRAMES = 16
# Roles in whose images the language model learns how things have moved: how far where two frames are seen,
# which way in a grid, whose frames are small.
TELL_MOTION, TELL_WAY = ("sliding",), ("static", "look")
# Of the language model's four layers: what a later one is to use must stand there in an earlier one.
PLACE_LAYER, MOTION_LAYER, HINT_LAYER = 1, 2, 3


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
        self.told_place = nn.Linear(width, 2)  # of the language model's patches: where in its frame a body is
        self.told_motion = nn.Linear(width, 2)  # of the language model, which has read the frame before
        self.told_frame = nn.Linear(width, GRID_FRAMES)  # of the language model: which frame a patch is of
        self.told_way = nn.Linear(width, 1 + len(DIRECTIONS))  # of the same: no motion, or its direction
        self.felt_way = nn.Linear(width, len(DIRECTIONS))  # of the thing a question asks about
        self.right = nn.Linear(width, 2)  # of an option: how right it is, taught with its letter and without

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
        if features and rows[0].role in TELL_MOTION + TELL_WAY:
            dense = dense + self._told_motion(rows, labels, told.hidden_states, ids_BS == self.image_id)
        aside = dense + self._hints(rows, [len(f) for f in features], told.hidden_states[HINT_LAYER])
        aside = aside + self._not_offered(rows, [len(f) for f in features], hidden)
        taught = labels_BS[:, 1:] >= 0
        logits = self.model.lm_head(hidden[:, :-1][taught])
        aims = labels_BS[:, 1:][taught]
        right = (logits.argmax(-1) == aims).float().mean()
        return F.cross_entropy(logits.float(), aims), aside, right

    def _hints(self, rows: Sequence[Row], image_tokens: Sequence[int], hidden_BSD: Tensor) -> Tensor:
        """How far the language model is from knowing the answer where the question ends.

        Which letter stands for the answer is easy to learn once the answer stands at one known place, and the
        right option knows that it is.
        """
        where, words, felt, ways, options, rights = [], [], [], [], [], []
        for index, row in enumerate(rows):
            extra = image_tokens[index] - 1 if image_tokens else 0  # images come before questions
            for position, word in row.hints:
                where.append(hidden_BSD[index, position + extra])
                words.append(word)
            for position, way in row.felt:
                felt.append(hidden_BSD[index, position + extra])
                ways.append(way)
            for choice in row.choices:
                ends = torch.tensor(choice.ends) + extra
                options.append(self.dense.right(hidden_BSD[index, ends])[:, int(choice.felt)])
                rights.append(choice.right)
        loss = hidden_BSD.sum() * 0
        if where:
            said = self.model.lm_head(self.model.model.language_model.norm(torch.stack(where)))
            loss = loss + F.cross_entropy(said.float(), torch.tensor(words))
        if felt:
            loss = loss + F.cross_entropy(self.dense.felt_way(torch.stack(felt)), torch.tensor(ways))
        if options:
            padded = nn.utils.rnn.pad_sequence(options, batch_first=True, padding_value=-1e9)
            loss = loss + F.cross_entropy(padded, torch.tensor(rights))
        return loss

    def _not_offered(self, rows: Sequence[Row], image_tokens: Sequence[int], hidden_BSD: Tensor) -> Tensor:
        """How far replies to questions without an answer are from naming any of the letters offered."""
        where, allowed = [], []
        for index, row in enumerate(rows):
            extra = image_tokens[index] - 1 if image_tokens else 0
            for position, letters in row.offered:
                where.append(hidden_BSD[index, position + extra])
                allowed.append(letters)
        if not where:
            return hidden_BSD.sum() * 0
        chances = F.log_softmax(self.model.lm_head(torch.stack(where)).float(), dim=-1)
        named = [row[list(letters)].logsumexp(0) for row, letters in zip(chances, allowed, strict=True)]
        return -torch.stack(named).mean()

    def _seen_motion(self, rows: Sequence[Row], labels: Sequence[Tensor], seen_RND: Tensor) -> Tensor:
        """How far the tower's features of the overview tile are from saying how each body moves."""
        losses, start = [], 0
        for row, label in zip(rows, labels, strict=True):
            assert row.picture is not None
            found = motion(label.numpy(), image_size(row.picture))
            where = torch.from_numpy(found.known[0])
            aim = torch.from_numpy(found.moved[0])[where]
            losses.append((self.dense.seen_motion(seen_RND[start][where]) - aim).abs().flatten())
            start += len(label)
        return 10 * torch.cat(losses).mean() if any(len(x) for x in losses) else seen_RND.sum() * 0

    def _told_motion(
        self,
        rows: Sequence[Row],
        labels: Sequence[Tensor],
        hidden: Sequence[Tensor],
        image_BS: Tensor,
    ) -> Tensor:
        """The same of the language model, at every frame but the first, and where in its frame a body is.

        In a grid directions are told, not distances: these are so small beside what is unsure of them that
        the best guess of most is no motion, and nothing would be learnt.
        """
        way = rows[0].role in TELL_WAY
        zero = hidden[-1].sum() * 0
        moves, places, frames = [zero[None]], [zero[None]], [zero[None]]
        for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
            assert row.picture is not None
            size = image_size(row.picture)
            found, order = motion(label.numpy(), size), self.packing(size)
            layers = [states[index][image_BS[index]] for states in hidden]
            place, aim = _told(self.dense.told_place, layers[PLACE_LAYER], order, found.on_body, found.place)
            places.append(F.l1_loss(place, aim, reduction="none").flatten())
            known = found.known & (found.frame > 0)
            if not way:
                far, aim = _told(self.dense.told_motion, layers[MOTION_LAYER], order, known, found.moved)
                moves.append(10 * F.l1_loss(far, aim, reduction="none").flatten())
                continue
            going, aim = _told(self.dense.told_way, layers[MOTION_LAYER], order, known, found.ways())
            moves.append(F.cross_entropy(going, aim, reduction="none"))
            single = np.broadcast_to(
                np.arange(len(found.frame))[:, None] > 0, found.frame.shape
            )  # not the overview
            shown, aim = _told(self.dense.told_frame, layers[PLACE_LAYER], order, single, found.frame)
            frames.append(F.cross_entropy(shown, aim, reduction="none"))
        told = [torch.cat(x)[1:].mean().nan_to_num() for x in (moves, places, frames)]
        return told[0] + 10 * told[1] + told[2]

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


def _told(
    head: nn.Linear,
    states_SD: Tensor,
    order_S: Tensor,
    where_TN: npt.NDArray[np.bool_],
    aims: npt.NDArray[Any],
) -> tuple[Tensor, Tensor]:
    """What a head says at the image tokens that stand for some patches, and what it should say.

    ``aims`` are [T, N] or [T, N, 2].
    """
    wanted = torch.cat([torch.from_numpy(where_TN.ravel()), torch.zeros(1, dtype=torch.bool)])
    at = wanted[order_S]
    aim = torch.from_numpy(aims.reshape(where_TN.size, *aims.shape[2:]))
    return head(states_SD[at]), aim[order_S[at]]
