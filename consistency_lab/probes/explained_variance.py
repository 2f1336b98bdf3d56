"""How much of the final image is fixed at a noise level: what the estimate made there already explains of it.

All statistics are ratios of sums over samples. The interval comes from leaving out one sample at a time, which the sums allow in closed
form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from consistency_lab.intervals import Array, Interval, jackknife
from consistency_lab.metrics.base import Distance

FLAT = 1e-12  # a variance below this (squared image units, a share of mse) is none


class Statistic(NamedTuple):
    """A statistic and its replicates with one sample left out: ``(...)`` and ``(N, ...)``."""

    estimate: Array
    without: Array

    @property
    def interval(self) -> Interval:
        return jackknife(self.estimate, self.without)


def fixed_share(estimates: Tensor, final: Tensor) -> Statistic:
    """``1 - E |final - estimate|^2 / E |final - mean of final|^2`` at each level.

    1 where the estimate is the final image, 0 where it knows no more of it than the mean of all final images (below 0: less).

    Args:
        estimates: embeddings ``(T, N, F)`` of the x0 estimates.
        final: embeddings ``(N, F)`` of the final images, N >= 3.

    Returns:
        ``(T,)`` and ``(N, T)``; NaN where the final images do not differ.
    """
    n = len(final)
    apart = (estimates.double() - final.double()).pow(2).sum(-1).numpy()  # (T, N)
    around = (final.double() - final.double().mean(0)).pow(2).sum(-1).numpy()
    total = around.sum()
    # Without sample i the mean moves, and the sum of squares about it falls by n / (n - 1) times that sample's.
    estimate = _ratio(apart.mean(1), np.array(total / (n - 1)))
    without = _ratio(
        (apart.sum(1, keepdims=True) - apart).T / (n - 1), ((total - n / (n - 1) * around) / (n - 2))[:, None]
    )
    return Statistic(estimate, without)


def _ratio(error: Array, variance: Array) -> Array:
    known = variance > FLAT
    return np.where(known, 1.0 - error / np.where(known, variance, 1.0), np.nan)


def correlation(estimates: Tensor, final: Tensor) -> Statistic:
    """Pooled correlation over samples and features of estimate and final image, each less its mean over samples: 0 for unrelated images.

    Arguments and returns as in `fixed_share`; NaN also where the estimates do not differ.
    """
    n = len(final)
    a, b = (x.double() - x.double().mean(-2, keepdim=True) for x in (estimates, final))
    products = [x.sum(-1).numpy() for x in (a * b, a.pow(2), b.pow(2).expand_as(a))]  # each (T, N)
    whole = [x.sum(1) for x in products]
    less = [(x.sum(1, keepdims=True) - n / (n - 1) * x).T for x in products]
    return Statistic(_cosine(whole), _cosine(less))


def _cosine(sums: list[Array]) -> Array:
    both, left, right = sums
    known = (left > FLAT) & (right > FLAT)
    return np.where(known, both / np.sqrt(np.where(known, left * right, 1.0)), np.nan)


def crossing(times: Array, curve: Statistic, level: float = 0.5) -> Interval:
    """The time at which a curve along falling times first reaches a level, linear between two times, with its interval.

    Args:
        times: ``(T,)``, falling.
        curve: ``(T,)`` and ``(N, T)``.

    Returns:
        scalars; NaN where the curve is undefined or never reaches the level.
    """
    replicates = np.array([_first_reach(times, row, level) for row in curve.without])
    return jackknife(np.array(_first_reach(times, curve.estimate, level)), replicates)


def _first_reach(times: Array, values: Array, level: float) -> float:
    reached = values >= level
    if not np.isfinite(values).all() or not reached.any():
        return np.nan
    k = int(np.argmax(reached))
    if k == 0:
        return float(times[0])
    share = (level - values[k - 1]) / (values[k] - values[k - 1])
    return float(times[k - 1] + share * (times[k] - times[k - 1]))


def embedded(parts: Sequence[Distance], estimates: Tensor) -> list[Tensor]:
    """Estimates ``(T, N, C, H, W)`` in each part's features, ``(T, N, F)``."""
    return [torch.stack([part.embed(x) for x in estimates]) for part in parts]
