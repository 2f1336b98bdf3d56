"""Where in the image a difference lies: shares of the mean squared error by spatial frequency, and by principal component of the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from consistency_lab.errors import UserError
from consistency_lab.metrics.base import SquaredDistance, check_images

_MOST = 4096  # pixels x channels whose covariance is diagonalised: some 0.5 GB and a minute


class BandError(SquaredDistance):
    """The part of the mean squared error that lies in a band of spatial frequencies.

    The orthonormal DCT-II keeps squared norms (Parseval), so the errors of bands that partition [0, 1] sum to the mean squared error.
    The coefficient (i, j) of an H x W image has the radius sqrt((i/H)^2 + (j/W)^2) / sqrt(2), from 0 (the mean) to below 1 (the corner).

    Args:
        low, high: the band [low, high), within [0, 1].

    Raises:
        UserError: no such band; when images come, a band without a coefficient.
    """

    unit = "squared image units, range [-1, 1]: a share of mse"

    def __init__(self, *, low: float = 0.0, high: float = 0.25):
        if not 0 <= low < high <= 1:
            raise UserError(f"a band of frequencies needs 0 <= low < high <= 1, not low={low:g}, high={high:g}.")
        self.low, self.high = float(low), float(high)
        self.name = f"band-{low:g}-{high:g}"
        self.note = f"DCT coefficients of radius {low:g} to {high:g}, where 1 is the corner of the spectrum"

    def embed(self, images: Tensor) -> Tensor:
        values = check_images(images).double()
        height, width = values.shape[-2:]
        radius = _radius(height, width).to(values.device)
        inside = (radius >= self.low) & (radius < self.high)
        if not inside.any():
            raise UserError(
                f"no frequency of {height}x{width} images lies in the band {self.low:g} to {self.high:g}; "
                f"they lie at multiples of about {1 / (math.sqrt(2) * max(height, width)):.3g}."
            )
        spectrum = _dct(height).to(values.device) @ values @ _dct(width).to(values.device).T
        return spectrum[:, :, inside].flatten(1) / values[0].numel() ** 0.5


def _dct(size: int) -> Tensor:
    """The orthonormal DCT-II as a matrix ``(size, size)`` float64: row k is the k-th cosine."""
    k, x = (
        torch.arange(size, dtype=torch.float64, device="cpu")[:, None],
        torch.arange(size, dtype=torch.float64, device="cpu"),
    )
    matrix = torch.cos(torch.pi * k * (x + 0.5) / size) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def _radius(height: int, width: int) -> Tensor:
    rows = torch.arange(height, dtype=torch.float64, device="cpu")[:, None] / height
    columns = torch.arange(width, dtype=torch.float64, device="cpu") / width
    return ((rows**2 + columns**2) / 2).sqrt()


class ComponentError(SquaredDistance):
    """The part of the mean squared error that lies along some principal components of a data set; made by `principal_components`."""

    unit = "squared image units, range [-1, 1]: a share of mse"

    def __init__(self, directions: Tensor, first: int, note: str):
        """``directions`` are components as columns; ``first`` is the number of the first, counted from 1."""
        self.directions, self.first, self.last, self.note = directions, first, first + directions.shape[1] - 1, note
        self.name = f"pc-{self.first}-{self.last}"

    def embed(self, images: Tensor) -> Tensor:
        flat = check_images(images).double().flatten(1)
        if flat.shape[1] != len(self.directions):
            raise UserError(
                f"the principal components are of images of {len(self.directions)} values, not {flat.shape[1]}."
            )
        return flat @ self.directions.to(flat.device) / flat.shape[1] ** 0.5


def principal_components(images: Tensor, edges: Sequence[int], data: str = "the training set") -> list[ComponentError]:
    """One distance per group of principal components of the training images; together they sum to the mean squared error.

    Args:
        images: the training images, ``(N, C, H, W)`` in [-1, 1].
        edges: the components at which a group ends, increasing: (8, 64) makes the groups 1 to 8, 9 to 64 and 65 to the last.
        data: what notes call the set.

    Raises:
        UserError: fewer than two images, constant images, edges out of order or beyond the number of components, images of more than
            4096 values.
    """
    flat = check_images(images).double().flatten(1)
    size = flat.shape[1]
    if len(flat) < 2 or size > _MOST:
        raise UserError(
            f"principal components need 2 images or more of at most {_MOST} values each, not {len(flat)} of {size}; use bands."
        )
    ends = [*edges, size]
    if ends[0] < 1 or any(a >= b for a, b in pairwise(ends)):
        raise UserError(f"edges of component groups must increase within 1..{size - 1}, unlike {tuple(edges)}.")
    variance, directions = torch.linalg.eigh(torch.cov(flat.T).reshape(size, size))
    variance, directions = variance.flip(0).clamp_min(0.0), directions.flip(1)
    if not float(variance.sum()) > 0:
        raise UserError(f"the images of {data} are all equal, so they have no principal components.")
    shares = variance / variance.sum()
    return [
        ComponentError(
            directions[:, start:end],
            start + 1,
            f"principal components {start + 1} to {end} of {data}, {100 * float(shares[start:end].sum()):.3g} % of its variance",
        )
        for start, end in pairwise([0, *ends])
    ]
