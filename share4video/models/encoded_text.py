"""A conversation as token ids, whatever the architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EncodedText:
    """One conversation as token ids.

    Attributes:
        input_ids: (length,) with the mark of a picture or video repeated once per feature.
        supervised: (length,) true on the answers, their end-of-turn token included.
    """

    input_ids: torch.Tensor
    supervised: torch.Tensor
