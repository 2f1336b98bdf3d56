"""An MLP on the flattened image: no notion of space at all, the far end of the comparison between architectures."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from consistency_lab.choices import require_positive
from consistency_lab.networks.blocks import ImageNetwork, TimeEmbedding, zeroed


class MLPBlock(nn.Module):
    """A residual layer pair whose hidden layer is scaled and shifted by the time: (B, width) -> (B, width)."""

    def __init__(self, width: int, vector: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, width)
        self.modulation = nn.Linear(vector, 2 * width)
        self.linear_2 = zeroed(nn.Linear(width, width))

    def forward(self, h: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.modulation(vector).chunk(2, dim=1)
        return h + self.linear_2(F.silu(self.linear_1(self.norm(h)) * (1 + scale) + shift))


class MLP(ImageNetwork):
    """A residual MLP over the flattened image.

    Args:
        shape, classes: as in `ImageNetwork`; any size.
        width: length of the hidden vectors.
        depth: number of residual blocks.
        vector: length of the time vector, even.

    Raises `UserError` for options that are not usable.
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int = 0, *, width: int = 384, depth: int = 3, vector: int = 64
    ):
        super().__init__(shape, classes)
        require_positive(width=width, depth=depth, vector=vector)
        pixels = shape[0] * shape[1] * shape[2]
        self.embedding = TimeEmbedding(vector, vector, classes)
        self.linear_in = nn.Linear(pixels, width)
        self.blocks = nn.ModuleList(MLPBlock(width, vector) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.linear_out = zeroed(nn.Linear(width, pixels))

    def body(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        vector = F.silu(self.embedding(t, cond))
        h = self.linear_in(x.flatten(1))
        for block in self.blocks:
            h = block(h, vector)
        return self.linear_out(self.norm(h)).view_as(x)
