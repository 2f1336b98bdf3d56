"""Distances between two sets of images, pair by pair, each with its null: the distance that other noise would give.

Images are ``(N, C, H, W)`` in [-1, 1] (estimates may leave it). Results are float64 ``(N,)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from consistency_lab.choices import Registry
from consistency_lab.errors import UserError

RANGE = 2.0  # width of the image range [-1, 1]
_SHIFTS = 16  # other-noise partners per sample where the null has no closed form


class Distance(ABC):
    """A way to compare image i of one model with image i of another.

    Images are embedded once per model, so that K models cost K embeddings and not K (K - 1).

    Attributes:
        name: how results and the command line call it.
        unit: of its values.
        scored: whether 1 - distance / null is a consistency score; only for distances, where 0 means equal.
        better: ``"lower"`` or ``"higher"``.
    """

    name: str
    unit: str
    scored: bool = True
    better: str = "lower"

    def embed(self, images: Tensor) -> Tensor:
        """What is kept of the images, ``(N, F)`` float64."""
        return images.double().flatten(1)

    @abstractmethod
    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of embedding i of ``a`` to embedding i of ``b``: ``(N,)``."""

    def null(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean distance of sample i of one model to the samples j != i of the other, averaged over both directions: ``(N,)``.

        Its mean over i is the mean over all i != j. Here over up to `_SHIFTS` cyclic shifts; exact for squared distances.

        Raises:
            UserError: fewer than two samples, for which there is no other noise.
        """
        check_samples(a)
        shifts = torch.linspace(1, len(a) - 1, min(_SHIFTS, len(a) - 1)).round().long().unique().tolist()
        total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
        for shift in shifts:
            total += self.between(a, b.roll(shift, 0)) + self.between(a.roll(shift, 0), b)
        return total / (2 * len(shifts))


class SquaredDistance(Distance):
    """A distance that is the squared Euclidean distance of embeddings: its null over all i != j follows from sums, in O(N)."""

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).pow(2).sum(1)

    def null(self, a: Tensor, b: Tensor) -> Tensor:
        check_samples(a)
        # Differences of large equal terms would cost digits: centre both embeddings by one common point, which changes no distance.
        centre = 0.5 * (a.mean(0) + b.mean(0))
        a, b = a - centre, b - centre
        own = (a - b).pow(2).sum(1)
        to_b = len(b) * a.pow(2).sum(1) + b.pow(2).sum() - 2 * (a @ b.sum(0)) - own
        to_a = len(a) * b.pow(2).sum(1) + a.pow(2).sum() - 2 * (b @ a.sum(0)) - own
        return 0.5 * (to_a + to_b) / (len(a) - 1)


class MeanSquaredError(SquaredDistance):
    """Mean over pixels of the squared difference; images span [-1, 1]."""

    name, unit = "mse", "squared image units, range [-1, 1]"

    def embed(self, images: Tensor) -> Tensor:
        flat = images.double().flatten(1)
        return flat / flat.shape[1] ** 0.5


class CosineDistance(SquaredDistance):
    """1 - cosine of the angle between two images as vectors of pixels in [-1, 1], not centred."""

    name, unit = "cosine", "1 - cosine, from 0 to 2"

    def embed(self, images: Tensor) -> Tensor:
        flat = images.double().flatten(1)
        # 1 - cos = |u - v|^2 / 2 for unit vectors. A black-hole zero image has no direction; it stays 0.
        return flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-12) / 2**0.5


class PeakSignalToNoise(Distance):
    """10 log10(range^2 / MSE) in dB, infinite for equal images. A similarity on a logarithmic scale: shown, never scored."""

    name, unit, scored, better = "psnr", "dB", False, "higher"

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return 10 * torch.log10(RANGE**2 / (a - b).pow(2).mean(1))


METRICS: Registry[Distance] = Registry(
    "metric", {"mse": MeanSquaredError, "cosine": CosineDistance, "psnr": PeakSignalToNoise}
)


def check_samples(images: Tensor) -> None:
    """Raise `UserError` for fewer than two samples."""
    if len(images) < 2:
        raise UserError(
            f"a comparison needs at least 2 samples for its null (the same models under other noise), not {len(images)}; raise count."
        )


def nearest(images: Tensor, candidates: Tensor, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """For each image the mean squared error to its nearest candidate, ``(N,)`` float64, and that candidate's index ``(N,)``."""
    flat = images.double().flatten(1)
    best = torch.full((len(flat),), torch.inf, dtype=torch.float64, device=flat.device)
    index = torch.zeros(len(flat), dtype=torch.long, device=flat.device)
    for first in range(0, len(candidates), chunk):
        block = candidates[first : first + chunk].to(flat.device).double().flatten(1)
        squares = (flat.pow(2).sum(1, keepdim=True) + block.pow(2).sum(1) - 2 * flat @ block.T).clamp_min(0.0)
        smallest, where = squares.min(1)
        closer = smallest < best
        best, index = torch.where(closer, smallest, best), torch.where(closer, where + first, index)
    # The expansion above rounds; the winner's distance is computed again from the difference itself.
    return (flat - candidates[index.to(candidates.device)].to(flat.device).double().flatten(1)).pow(2).mean(1), index
