"""How good samples are, beside real images: distances of feature distributions, and shares of neighbours, each with an interval.

A number is called FID or KID only with Inception's features; otherwise its name says whose features it is of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from consistency_lab.devices import places
from consistency_lab.errors import UserError
from consistency_lab.intervals import jackknife
from consistency_lab.metrics.inception import INCEPTION
from consistency_lab.metrics.neighbours import radii, shares_of_neighbours

INTERVAL = "95 %, delete-a-group jackknife over samples, t(groups - 1); the real images are held fixed"
_ROWS = 2048  # rows of a kernel matrix at a time


class Measure(NamedTuple):
    """One number on a set of samples.

    Attributes:
        name: with the features' name: "Frechet distance (digits classifier features)".
        value: what was measured on all samples.
        low, high: bounds of its interval (`INTERVAL`); NaN for too few samples.
        better: "lower" or "higher".
        samples: how many there were. Frechet distances of different numbers of samples do not compare: they fall with it.
        bias: of a Frechet distance, how much of it is owed to the number of samples, by the jackknife: with more of them it would be nearer
            to ``value - bias``. Fit to be read where samples are several times the features; NaN for other measures and too few samples.
    """

    name: str
    value: float
    low: float
    high: float
    better: str
    samples: int
    bias: float = np.nan


class Moments(NamedTuple):
    """Mean ``(F,)`` and unbiased covariance ``(F, F)`` of features, float64."""

    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True, eq=False)
class Reference:
    """Features of real images, with what every measure needs of them.

    Args:
        features: ``(N, F)``, N >= 2.
        of: the features' name, a ``feature_name``: "digits classifier features".
        neighbours: k of precision, recall, density and coverage.

    Raises `UserError` for features that are no finite matrix of two rows or more.
    """

    features: Tensor
    of: str
    neighbours: int = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", _checked(self.features, "the real images").double())

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance."""
        return moments(self.features)

    @cached_property
    def centred(self) -> Tensor:
        """Features less their mean: distances lose fewer digits."""
        return self.features - self.moments.mean

    @cached_property
    def radii(self) -> Tensor:
        """Squared distance of each real image to its k-th nearest other."""
        return radii(self.centred, self.neighbours)

    @cached_property
    def own_kernel(self) -> Tensor:
        """Mean kernel of two different real images, a scalar."""
        return _mean_kernel(self.features)


def measure(reference: Reference, features: Tensor, groups: int = 20) -> list[Measure]:
    """Every measure of samples beside real images.

    Args:
        reference: the real images.
        features: of the samples, by the same extractor, ``(M, F)``.
        groups: of the jackknife; sample i is in group i modulo ``groups``.

    Returns:
        Frechet distance, kernel distance, precision, recall, density and coverage.

    Raises:
        UserError: features that are no finite matrix, of another length, of fewer samples than k + 1.
    """
    samples = _checked(features, "the samples").double().to(reference.features.device)
    if samples.shape[1] != reference.features.shape[1]:
        raise UserError(
            f"the samples have {samples.shape[1]} features and the real images {reference.features.shape[1]}; use one extractor."
        )
    inception = reference.of == INCEPTION
    names = ["Frechet distance", "kernel distance", "precision", "recall", "density", "coverage"]
    titles = [f"{name} ({reference.of})" for name in names]
    titles[:2] = ["FID", "KID"] if inception else titles[:2]
    enough = reference.neighbours + 1
    estimate, low, high, bias = _with_interval(lambda part: _all(reference, part), samples, groups, enough)
    # A bound beyond what the measure can be is drawn back, which cannot change whether the interval covers the truth.
    least, most = np.array([0, -np.inf, 0, 0, 0, 0]), np.array([np.inf, np.inf, 1, 1, np.inf, 1])
    low, high = np.clip(low, least, most), np.clip(high, least, most)
    better = ["lower", "lower", "higher", "higher", "higher", "higher"]
    biases = [float(bias[0]), *[np.nan] * (len(names) - 1)]
    rows = zip(titles, estimate.tolist(), low.tolist(), high.tolist(), better, strict=True)
    return [Measure(*row, len(samples), owed) for row, owed in zip(rows, biases, strict=True)]


def _all(reference: Reference, samples: Tensor) -> Tensor:
    """Every measure ``(6,)`` of samples that have been checked, where they are: nothing is waited for."""
    centred = samples - reference.moments.mean
    shares = shares_of_neighbours(reference.centred, reference.radii, centred, reference.neighbours)
    distances = (_frechet(reference.moments, _moments(samples)), _kernel_distance(reference, samples))
    return torch.cat([torch.stack(distances), shares])


def _with_interval(
    statistic: Callable[[Tensor], Tensor], samples: Tensor, groups: int, least: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The statistic, its interval, and its bias; NaN where there are too few samples. All replicates come home together."""
    count = min(groups, len(samples))
    group = np.arange(len(samples)) % max(1, count)
    enough = count >= 2 and len(samples) - -(-len(samples) // count) >= max(2, least)
    left = [places(np.flatnonzero(group != g), samples.device) for g in range(count if enough else 0)]
    rows = torch.stack([statistic(samples), *(statistic(samples[kept]) for kept in left)]).cpu().numpy()
    estimate, without = rows[0], rows[1:]
    if not enough:
        nothing = np.full_like(estimate, np.nan)
        return estimate, nothing, nothing, nothing
    return *jackknife(estimate, without), (count - 1) * (without.mean(0) - estimate)


def moments(features: Tensor) -> Moments:
    """Mean and unbiased covariance of features ``(N, F)``. Raises `UserError` for fewer than two rows or values that are not finite."""
    return _moments(_checked(features, "the images").double())


def _moments(values: Tensor) -> Moments:
    # As torch.cov, which on a GPU is waited for to see whether there is more than one row.
    centred = values.T - values.T.mean(1, keepdim=True)
    return Moments(values.mean(0), centred @ centred.T / (len(values) - 1))


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), the squared 2-Wasserstein distance of Gaussians (Heusel et al. 1706.08500).

    tr (A B)^(1/2) is the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2), which is symmetric: no root of a matrix that is not,
    and covariances may be singular.
    """
    return float(_frechet(a, b))


def _frechet(a: Moments, b: Moments) -> Tensor:
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T
    product = root @ b.covariance @ root
    cross = torch.linalg.eigvalsh(0.5 * (product + product.T)).clamp_min(0.0).sqrt().sum()
    traces = a.covariance.trace() + b.covariance.trace()
    return ((a.mean - b.mean).pow(2).sum() + traces - 2 * cross).clamp_min(0.0)


def kernel_distance(reference: Reference, samples: Tensor) -> float:
    """The squared maximum mean discrepancy with the kernel (x y / F + 1)^3, unbiased, over all samples at once.

    Binkowski et al. 1801.01401 average it over subsets; this is the same estimator without subsets. It may be negative.
    """
    return float(_kernel_distance(reference, _checked(samples, "the samples").double()))


def _kernel_distance(reference: Reference, values: Tensor) -> Tensor:
    cross = _sum([_kernel(rows, values).sum() for rows in reference.features.split(_ROWS)])
    return reference.own_kernel + _mean_kernel(values) - 2 * cross / (len(reference.features) * len(values))


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1).pow(3)


def _mean_kernel(features: Tensor) -> Tensor:
    """The mean over pairs of different rows, a scalar."""
    n = len(features)
    total = _sum([_kernel(rows, features).sum() for rows in features.split(_ROWS)])
    own = (features.pow(2).sum(1) / features.shape[1] + 1).pow(3).sum()
    return (total - own) / (n * (n - 1))


def _sum(parts: list[Tensor]) -> Tensor:
    """Of scalars, one after the other."""
    return sum(parts[1:], start=parts[0])


def _checked(features: Tensor, what: str) -> Tensor:
    if features.ndim != 2 or len(features) < 2 or features.shape[1] < 1:
        raise UserError(f"the features of {what} must be (N, F) with N of at least 2, not {tuple(features.shape)}.")
    bad = (~features.isfinite().all(1)).nonzero()
    if len(bad):
        raise UserError(f"the features of {what} are not finite, first in row {int(bad[0])}; leave it out.")
    return features
