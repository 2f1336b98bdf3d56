"""Images as sequences of patches, for the transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from consistency_lab.choices import require_positive
from consistency_lab.errors import UserError
from consistency_lab.networks.blocks import require_multiple


class Patches(nn.Module):
    """Images to patch tokens and back, by reshaping only: (B, C, H, W) <-> (B, H/p * W/p, C*p*p)."""

    def __init__(self, shape: tuple[int, int, int], size: int):
        super().__init__()
        require_positive(patch=size)
        require_multiple(shape, size, f"the patches are {size}x{size}")
        self.size = size
        self.rows, self.columns = shape[1] // size, shape[2] // size
        self.values = shape[0] * size * size

    def cut(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, C*p*p)."""
        x = x.unflatten(3, (self.columns, self.size)).unflatten(2, (self.rows, self.size))
        return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def join(self, tokens: Tensor) -> Tensor:
        """(B, N, C*p*p) -> (B, C, H, W)."""
        x = tokens.unflatten(2, (-1, self.size, self.size)).unflatten(1, (self.rows, self.columns))
        return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def grid_positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed sine and cosine codes of a grid's rows and columns: (rows * columns, width), width a multiple of 4."""
    if width % 4:
        raise UserError(f"a width of {width} cannot hold 2-D positions; choose a multiple of 4.")
    frequency = 10_000 ** -(torch.arange(width // 4, dtype=torch.float64, device="cpu") / (width // 4))
    row, column = torch.meshgrid(torch.arange(rows, device="cpu"), torch.arange(columns, device="cpu"), indexing="ij")
    angles = [place.flatten()[:, None] * frequency for place in (row, column)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1).float()
