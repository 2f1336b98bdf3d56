"""DiT: a transformer over patches whose norms are modulated by time and class (Peebles & Xie 2023, adaLN-Zero)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from consistency_lab.choices import require_positive
from consistency_lab.networks.blocks import ImageNetwork, SelfAttention, TimeEmbedding, zeroed
from consistency_lab.networks.patches import Patches, grid_positions


class DiTBlock(nn.Module):
    """Attention and a four times wider MLP, each after a scaled and shifted norm and before a gate.

    Time and class make scales, shifts and gates by a layer that is zero at first: every block starts as the identity.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = SelfAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulation = zeroed(nn.Linear(width, 6 * width))

    def forward(self, tokens: Tensor, vector: Tensor) -> Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(vector)[:, None].chunk(6, dim=2)
        tokens = tokens + gate_1 * self.attention(self.norm(tokens) * (1 + scale_1) + shift_1)
        return tokens + gate_2 * self.mlp(self.norm(tokens) * (1 + scale_2) + shift_2)


class DiT(ImageNetwork):
    """A diffusion transformer on pixels.

    Args:
        shape, classes: as in `ImageNetwork`. Height and width must be multiples of ``patch``.
        width: length of a token, a multiple of 4 and of ``heads``.
        depth: number of blocks.
        heads: attention heads.
        patch: side of a patch in pixels.

    Raises `UserError` for options or image sizes that do not fit together.
    """

    positions: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int = 0,
        *,
        width: int = 64,
        depth: int = 3,
        heads: int = 4,
        patch: int = 2,
    ):
        super().__init__(shape, classes)
        require_positive(width=width, depth=depth, heads=heads)
        self.patches = Patches(shape, patch)
        positions = grid_positions(self.patches.rows, self.patches.columns, width)
        self.register_buffer("positions", positions, persistent=False)
        self.embedding = TimeEmbedding(width, width, classes)
        self.patch_in = nn.Linear(self.patches.values, width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.patch_out = zeroed(nn.Linear(width, self.patches.values))

    def body(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        vector = F.silu(self.embedding(t, cond))
        tokens = self.patch_in(self.patches.cut(x)) + self.positions
        for block in self.blocks:
            tokens = block(tokens, vector)
        shift, scale = self.modulation(vector)[:, None].chunk(2, dim=2)
        return self.patches.join(self.patch_out(self.norm(tokens) * (1 + scale) + shift))
