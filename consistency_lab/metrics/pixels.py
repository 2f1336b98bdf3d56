"""Distances of the pixels themselves: mean squared error, cosine, peak signal-to-noise ratio, and the nearest image of a set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from consistency_lab.devices import at_a_time
from consistency_lab.errors import ShapeError
from consistency_lab.metrics.base import RANGE, Distance, SquaredDistance, check_images, squared_distances

_ELEMENTS = 2**18  # values of candidates that are held in float64 at a time (2 MiB)


class MeanSquaredError(SquaredDistance):
    """Mean over pixels of the squared difference; images span [-1, 1]."""

    name, unit = "mse", "squared image units, range [-1, 1]"

    def embed(self, images: Tensor) -> Tensor:
        flat = check_images(images).double().flatten(1)
        return flat / flat.shape[1] ** 0.5


class CosineDistance(SquaredDistance):
    """1 - cosine of the angle between two images as vectors of pixels in [-1, 1], not centred."""

    name, unit = "cosine", "1 - cosine, from 0 to 2"

    def embed(self, images: Tensor) -> Tensor:
        return half_unit(check_images(images).double().flatten(1))


def half_unit(vectors: Tensor) -> Tensor:
    """Rows ``(N, F)`` of norm 1 / sqrt(2), so that 1 - cos = |u - v|^2. A zero row (an image of mid-grey) has no direction; it stays 0."""
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12) / 2**0.5


class PeakSignalToNoise(Distance):
    """10 log10(range^2 / MSE) in dB, infinite for equal images. A similarity on a logarithmic scale: shown, never scored."""

    name, unit, scored, better = "psnr", "dB", False, "higher"

    def embed(self, images: Tensor) -> Tensor:
        return check_images(images).double().flatten(1)

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return _decibels((a - b).pow(2).mean(1))

    def shifted(self, embedded: Sequence[Tensor], pairs: Sequence[tuple[int, int]], shift: int) -> Tensor:
        return next(self.at_shifts(embedded, pairs, [shift]))

    def at_shifts(
        self, embedded: Sequence[Tensor], pairs: Sequence[tuple[int, int]], shifts: Sequence[int]
    ) -> Iterator[Tensor]:
        return (_decibels(each / embedded[0].shape[1]) for each in squared_distances(embedded, pairs, shifts))


def _decibels(mean_squares: Tensor) -> Tensor:
    return 10 * torch.log10(RANGE**2 / mean_squares)


def nearest(images: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """For each image the mean squared error to its nearest candidate, ``(N,)`` float64, and that candidate's index ``(N,)``.

    Raises:
        UserError: no images, or candidates of another shape.
    """
    if check_images(images).shape[1:] != candidates.shape[1:]:
        raise ShapeError(
            f"images {tuple(images.shape[1:])} have no nearest one among images {tuple(candidates.shape[1:])}; give both as (N, C, H, W) "
            "of one size."
        )
    flat = images.double().flatten(1)
    best = torch.full((len(flat),), -torch.inf, dtype=torch.float64, device=flat.device)
    index = torch.zeros(len(flat), dtype=torch.long, device=flat.device)
    rows = max(1, at_a_time(_ELEMENTS, flat.device) // max(1, flat.shape[1]))
    for first in range(0, len(candidates), rows):
        block = candidates[first : first + rows].to(flat.device).double().flatten(1)
        # |a|^2 is common to all candidates: the nearest has the largest a b - |b|^2 / 2.
        largest, where = (flat @ block.T).sub_(block.square().sum(1).mul_(0.5)).max(1)
        closer = largest > best
        best, index = torch.where(closer, largest, best), torch.where(closer, where + first, index)
    # The expansion above rounds; the winner's distance is computed again from the difference itself.
    return (flat - candidates[index.to(candidates.device)].to(flat.device).double().flatten(1)).pow(2).mean(1), index
