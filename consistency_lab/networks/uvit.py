"""U-ViT: a transformer over patches with long skip connections, time and class as tokens (Bao et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from consistency_lab.choices import require_positive
from consistency_lab.errors import UserError
from consistency_lab.networks.blocks import ImageNetwork, SelfAttention, TimeEmbedding, zeroed
from consistency_lab.networks.patches import Patches


class UViTBlock(nn.Module):
    """A pre-norm transformer block; in the second half a linear layer first merges the tokens of the mirrored block."""

    def __init__(self, width: int, heads: int, merges: bool):
        super().__init__()
        self.merge = nn.Linear(2 * width, width) if merges else None
        self.norm_1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, skip: Tensor | None = None) -> Tensor:
        if self.merge is not None and skip is not None:
            tokens = self.merge(torch.cat([tokens, skip], dim=2))
        tokens = tokens + self.attention(self.norm_1(tokens))
        return tokens + self.mlp(self.norm_2(tokens))


class UViT(ImageNetwork):
    """A U-ViT on pixels: the time, the class and every patch are tokens with learned positions.

    Args:
        shape, classes: as in `ImageNetwork`. Height and width must be multiples of ``patch``.
        width: length of a token, even and a multiple of ``heads``.
        depth: number of blocks, odd: one in the middle, the others in pairs that a long skip connects.
        heads: attention heads.
        patch: side of a patch in pixels.

    The last layer is a 3x3 convolution over the joined patches, zero at first. Two differences from the paper: query,
    key and value have biases, and the time token passes through the MLP that all networks here share.

    Raises `UserError` for options or image sizes that do not fit together.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int = 0,
        *,
        width: int = 512,
        depth: int = 13,
        heads: int = 8,
        patch: int = 2,
    ):
        super().__init__(shape, classes)
        require_positive(width=width, depth=depth, heads=heads)
        if depth % 2 == 0:
            raise UserError(f"a U-ViT of {depth} blocks has no middle; choose an odd depth, such as {depth + 1}.")
        self.patches = Patches(shape, patch)
        self.embedding = TimeEmbedding(width, width, classes)
        self.patch_in = nn.Linear(self.patches.values, width)
        self.extra = 1 + (classes > 0)
        # 0.02: the usual scale of learned positions (ViT).
        self.positions = nn.Parameter(0.02 * torch.randn(self.extra + self.patches.rows * self.patches.columns, width))
        self.before = nn.ModuleList(UViTBlock(width, heads, merges=False) for _ in range(depth // 2))
        self.middle = UViTBlock(width, heads, merges=False)
        self.after = nn.ModuleList(UViTBlock(width, heads, merges=True) for _ in range(depth // 2))
        self.norm = nn.LayerNorm(width)
        self.patch_out = nn.Linear(width, self.patches.values)
        self.conv_out = zeroed(nn.Conv2d(shape[0], shape[0], 3, padding=1))

    def body(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        extra = torch.stack(self.embedding.parts(t, cond), dim=1)
        tokens = torch.cat([extra, self.patch_in(self.patches.cut(x))], dim=1) + self.positions
        skips = []
        for block in self.before:
            tokens = block(tokens)
            skips.append(tokens)
        tokens = self.middle(tokens)
        for block in self.after:
            tokens = block(tokens, skips.pop())
        return self.conv_out(self.patches.join(self.patch_out(self.norm(tokens[:, self.extra :]))))
