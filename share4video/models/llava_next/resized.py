"""Embeddings with rows for more tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from share4video.models.llava_next.checkpoint_reader import LazyTensor, blocks


@dataclass(frozen=True)
class ResizedRows:
    """A matrix with rows added at its end, each the mean of those it has.

    As an input such a row is replaced (the image token) or never used; as an output its logit is the mean of
    all, so that no greedy answer takes it and hardly a drawn one.
    """

    base: LazyTensor
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, *self.base.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return rows; raises what the base raises."""
        held = self.base.shape[0]
        parts = []
        if start < held:
            parts.append(self.base.rows(start, min(stop, held)))
        if stop > held:
            parts.append(self._mean.expand(stop - max(start, held), *self.base.shape[1:]))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    @cached_property
    def _mean(self) -> torch.Tensor:
        total = torch.zeros(self.base.shape[1:], dtype=torch.float64)
        for block in blocks(self.base):
            total += block.float().sum(0)  # adding 16-bit types up as float64 is ten times as slow
        return (total / self.base.shape[0]).to(self.dtype)
