"""Fidelity and diversity by nearest neighbours of features: precision, recall, density and coverage.

Precision and recall: Kynkaanniemi et al. 1904.06991. Density and coverage: Naeem et al. 2002.09797.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from consistency_lab.devices import sent
from consistency_lab.errors import UserError

_ELEMENTS = 2**23  # squared distances that are held at a time (64 MiB)


class Neighbourhoods(NamedTuple):
    """Shares of samples among real images and the reverse.

    Attributes:
        precision: share of samples that lie in the ball of some real image, 0 to 1.
        recall: share of real images that lie in the ball of some sample, 0 to 1.
        density: mean number of real balls that a sample lies in, over k; from 0, 1 for equal distributions.
        coverage: share of real images whose ball holds a sample, 0 to 1.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def radii(features: Tensor, k: int) -> Tensor:
    """Squared distance of each row to its k-th nearest other row: ``(N, F)`` -> ``(N,)`` float64.

    Raises:
        UserError: k below 1, or no k other rows.
    """
    if not 1 <= k < len(features):
        raise UserError(
            f"a neighbourhood of k={k} needs more than k images and k of at least 1; there are {len(features)}."
        )
    found, first = [], 0
    for rows in features.split(max(1, _ELEMENTS // len(features))):
        squares = squared_distances(rows, features)
        # Itself is left out by index: by value, an equal image would be left out in its place.
        squares.diagonal(first).fill_(torch.inf)
        found.append(squares.topk(k, largest=False).values[:, -1])
        first += len(rows)
    return torch.cat(found)


def neighbourhoods(real: Tensor, real_radii: Tensor, samples: Tensor, k: int) -> Neighbourhoods:
    """Compare samples ``(M, F)`` with real images ``(N, F)``; a point on the rim of a ball lies in it.

    Args:
        real_radii: ``radii(real, k)``, which all sets of samples share.
    """
    return Neighbourhoods(*shares_of_neighbours(real, real_radii, samples, k).tolist())


def shares_of_neighbours(real: Tensor, real_radii: Tensor, samples: Tensor, k: int) -> Tensor:
    """`neighbourhoods` as a tensor ``(4,)`` float64 where the samples are."""
    sample_radii = radii(samples, k)
    inside = balls = torch.zeros((), dtype=torch.int64, device=real.device)
    recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    covered = torch.zeros_like(recalled)
    rows = max(1, _ELEMENTS // len(real))
    for part, own in zip(samples.split(rows), sample_radii.split(rows), strict=True):
        squares = squared_distances(part, real)
        held = squares <= real_radii
        inside = inside + held.any(1).sum()
        balls = balls + held.sum()
        covered |= held.any(0)
        recalled |= (squares <= own[:, None]).any(0)
    n, m = len(real), len(samples)
    counts = torch.stack([inside, recalled.sum(), balls, covered.sum()]).double()
    wholes = torch.tensor([m, n, k * m, n], dtype=torch.float64, device="cpu")
    return counts / sent(wholes, counts.device)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """``(N, F)``, ``(M, F)`` -> ``(N, M)`` float64, never negative; give centred features, since far from 0 the difference loses digits."""
    a, b = a.double(), b.double()
    return (a.pow(2).sum(1, keepdim=True) + b.pow(2).sum(1) - 2 * a @ b.T).clamp_min(0.0)
