"""Global multi-head relation aggregation: one token that gathers what a whole video's frames show.

UniFormerV2's block as VideoChat attaches it to its frozen tower (paper, section "VideoChat-Embed"; the
numbers are of the released code). After each of the tower's last layers a running token attends to every
token of every frame, to which a depth-wise convolution over time and place has added where they stand: the
one part of VideoChat that knows the order of frames.

Shapes: B videos, T frames, N tokens of a frame (its class token first), D channels.
"""

from __future__ import annotations

import math

import torch
from torch import nn


class GlobalRelationAggregator(nn.Module):
    """One layer; parameters have the released names, so that a checkpoint's are moved as they are.

    ``attn`` holds the weights of a plain attention. It is computed without a mask, like the reference's, and
    stochastic depth is left out, as the released configuration sets it to 0.
    """

    def __init__(self, width: int, heads: int, mlp_width: int, dropout: float) -> None:
        super().__init__()
        self.dpe = nn.Conv3d(width, width, kernel_size=3, padding=1, groups=width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)  # of the running token
        self.ln_2 = nn.LayerNorm(width)  # before the MLP
        self.ln_3 = nn.LayerNorm(width)  # of the frames' tokens
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(width, mlp_width),
                "dropout": nn.Dropout(dropout),
                "c_proj": nn.Linear(mlp_width, width),
            }
        )

    def forward(self, token_B1D: torch.Tensor, frames_BTND: torch.Tensor) -> torch.Tensor:
        """Return the running token after it has read the frames, (B, 1, D)."""
        seen_BSD = self._with_positions(self.ln_3(frames_BTND)).flatten(1, 2)
        read, _ = self.attn(self.ln_1(token_B1D), seen_BSD, seen_BSD, need_weights=False)
        token_B1D = token_B1D + read
        hidden = nn.functional.gelu(self.mlp["c_fc"](self.ln_2(token_B1D)))
        mixed: torch.Tensor = self.mlp["c_proj"](self.mlp["dropout"](hidden))
        return token_B1D + mixed

    def _with_positions(self, frames_BTND: torch.Tensor) -> torch.Tensor:
        """Add the convolution's answer to every token but the frames' class tokens."""
        batch, count, tokens, width = frames_BTND.shape
        side = math.isqrt(tokens - 1)
        grid = frames_BTND[:, :, 1:].reshape(batch, count, side, side, width).permute(0, 4, 1, 2, 3)
        moved = self.dpe(grid).flatten(3).permute(0, 2, 3, 1)
        return frames_BTND + nn.functional.pad(moved, (0, 0, 1, 0))
