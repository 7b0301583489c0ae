"""Several samples of one picture in one sequence that holds the picture once.

    prefix   system text, picture, and whatever else the samples start with alike
    branches the rest of each sample, one after the other

A token sees the prefix and its own branch up to itself, and positions restart at the end of the prefix in
every branch, so each sample is computed exactly as if it stood alone, while the picture (most of the tokens)
is computed once. A sample that is packed alone is a plain causal sequence.

Shapes: B sequences, S tokens, N pictures, T tiles of all pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from share4video.models.family import Family, Shown, family_of_type

if TYPE_CHECKING:
    import torch

    from share4video.training.samples import TokenSample

IGNORED = -100  # a label that is not learnt, as in torch's cross entropy
PREFIX = 0
PADDING = -1


@dataclass(frozen=True)
class Pack:
    """One sequence.

    Attributes:
        image: the picture, or the strip of a clip's frames, that all its samples look at.
        input_ids, position_ids: (S,).
        branches: (S,) ``PREFIX``, or 1, 2, ... for the samples' own parts.
        labels: (S,) the token itself where it is supervised, else ``IGNORED``.
        weights: (S,) what the token's loss counts; 0 where it is not supervised.
        samples: how many samples it holds.
    """

    image: Path | None
    image_size: tuple[int, int] | None
    input_ids: torch.Tensor
    position_ids: torch.Tensor
    branches: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    samples: int
    frames: int = 0  # of the strip; 0 for a picture

    @property
    def length(self) -> int:
        return len(self.input_ids)


def pack(
    samples: Sequence[TokenSample],
    *,
    image_token_id: int,
    video_token_id: int | None = None,
    per_pack: int,
    max_length: int,
    weighting: Literal["token", "sample"],
) -> list[Pack]:
    """Put samples of one picture with one beginning together, at most ``per_pack`` and ``max_length`` tokens.

    Args:
        weighting: whether every supervised token counts 1, or every sample does.
    """
    groups: dict[object, list[TokenSample]] = {}
    marks = (image_token_id, video_token_id)
    for number, sample in enumerate(samples):
        start = _picture_end(sample, marks)
        alone = sample.image is None or per_pack == 1
        key = number if alone else (sample.image, sample.input_ids[:start].numpy().tobytes())
        groups.setdefault(key, []).append(sample)
    return [
        _join(chosen, weighting)
        for group in groups.values()
        for chosen in _cut(group, _picture_end(group[0], marks), per_pack, max_length)
    ]


def _picture_end(sample: TokenSample, marks: tuple[int, int | None]) -> int:
    mark = marks[1] if sample.frames else marks[0]
    if mark is None:
        return 0
    places = sample.input_ids.eq(mark).nonzero()
    return int(places[-1]) + 1 if len(places) else 0


def _cut(
    group: Sequence[TokenSample], shared: int, per_pack: int, max_length: int
) -> Iterator[list[TokenSample]]:
    chosen: list[TokenSample] = []
    length = shared
    for sample in group:
        own = sample.length - shared
        if chosen and (len(chosen) == per_pack or length + own > max_length):
            yield chosen
            chosen, length = [], shared
        chosen.append(sample)
        length += own
    yield chosen


def _join(samples: Sequence[TokenSample], weighting: Literal["token", "sample"]) -> Pack:
    import torch

    prefix = samples[0].length if len(samples) == 1 else _common_prefix(samples)
    first = samples[0]
    ids = [first.input_ids[:prefix]]
    supervised = [first.supervised[:prefix]]
    positions = [torch.arange(prefix)]
    branches = [torch.full((prefix,), PREFIX)]
    weights = [_weights(first, weighting)[:prefix]]
    if len(samples) > 1:
        for number, sample in enumerate(samples, start=1):
            ids.append(sample.input_ids[prefix:])
            supervised.append(sample.supervised[prefix:])
            positions.append(torch.arange(prefix, sample.length))
            branches.append(torch.full((sample.length - prefix,), number))
            weights.append(_weights(sample, weighting)[prefix:])
    input_ids = torch.cat(ids)
    return Pack(
        image=first.image,
        image_size=first.image_size,
        input_ids=input_ids,
        position_ids=torch.cat(positions),
        branches=torch.cat(branches),
        labels=input_ids.where(torch.cat(supervised), IGNORED),
        weights=torch.cat(weights),
        samples=len(samples),
        frames=first.frames,
    )


def _common_prefix(samples: Sequence[TokenSample]) -> int:
    """Return how many tokens all samples share, ending before the token that predicts the first answer.

    Every branch so begins with a token that is not supervised: its predecessor in the sequence, which belongs
    to another branch, never predicts anything.
    """
    first = samples[0].input_ids
    shared = min(int(sample.supervised.nonzero()[0]) for sample in samples) - 1
    for sample in samples[1:]:
        size = min(shared, sample.length)
        different = (first[:size] != sample.input_ids[:size]).nonzero()
        shared = int(different[0]) if len(different) else size
    return max(shared, 0)


def _weights(sample: TokenSample, weighting: Literal["token", "sample"]) -> torch.Tensor:
    weights = sample.supervised.float()
    return weights / weights.sum() if weighting == "sample" else weights


def schedule(lengths: Sequence[int], *, batch_size: int, steps: int, seed: int) -> list[int]:
    """Return which sequence stands where in ``steps`` batches of ``batch_size``: the whole training in order.

    Every epoch is a new permutation; within 16 batches sequences are ordered by length, so that a batch holds
    little padding, and the batches are then shuffled. It depends on nothing but its arguments: a resumed
    training skips what it has seen.
    """
    order: list[int] = []
    epoch = 0
    while len(order) < batch_size * steps:
        random = np.random.default_rng([seed, epoch])
        shuffled = random.permutation(len(lengths))
        for start in range(0, len(shuffled), 16 * batch_size):
            window = shuffled[start : start + 16 * batch_size]
            window = window[np.argsort([-lengths[i] for i in window], kind="stable")]
            batches = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
            order += [int(i) for number in random.permutation(len(batches)) for i in batches[number]]
        epoch += 1
    return order[: batch_size * steps]


@dataclass(frozen=True)
class Collator:
    """Makes a batch of packs.

    Args:
        tiles: returns the tiles of a picture, or the frames of a strip, (tiles, 3, side, side).
        family: the model's; by default LLaVA-NeXT.
        additive_mask: whether the attention wants numbers to add (eager) or booleans (sdpa).
    """

    pad_token_id: int
    tiles: Callable[[Path], torch.Tensor]
    additive_mask: bool = False
    family: Family = field(default_factory=lambda: family_of_type("llava_next"))

    def __call__(self, packs: Sequence[Pack]) -> dict[str, torch.Tensor]:
        """Return the model's inputs with ``labels`` (B, S) and ``weights`` (B, S).

        ``attention_mask`` is (B, S) where no sequence has branches, else (B, 1, S, S). What is shown goes by
        the family's names, and is left out where nothing is.
        """
        import torch

        def padded(rows: list[torch.Tensor], value: float) -> torch.Tensor:
            return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

        branches_BS = padded([p.branches for p in packs], PADDING)
        if any(p.samples > 1 for p in packs):
            mask = tree_mask(branches_BS)
            if self.additive_mask:
                lowest = torch.finfo(torch.float32).min
                mask = torch.zeros(mask.shape).masked_fill(~mask, lowest)
        else:
            mask = (branches_BS != PADDING).long()
        batch = {
            "input_ids": padded([p.input_ids for p in packs], self.pad_token_id),
            "position_ids": padded([p.position_ids for p in packs], 0),
            "attention_mask": mask,
            "labels": padded([p.labels for p in packs], IGNORED),
            "weights": padded([p.weights for p in packs], 0.0),
        }
        shown = [
            Shown(self.tiles(p.image), p.image_size, p.frames)
            for p in packs
            if p.image is not None and p.image_size is not None
        ]
        if shown:
            batch |= self.family.batch(shown)
        return batch


def tree_mask(branches_BS: torch.Tensor) -> torch.Tensor:
    """Return (B, 1, S, S), true where token i of a sequence sees token j.

    Padding sees the prefix and padding (so that no row is empty) and is seen by nothing else.
    """
    import torch

    seen, seeing = branches_BS[:, None, None, :], branches_BS[:, None, :, None]
    size = branches_BS.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool, device=branches_BS.device).tril()
    return causal & ((seen == PREFIX) | (seen == seeing))
