"""95 % intervals: the delete-one jackknife along one axis and along two that cross, and t for means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with the bounds of its 95 % interval; NaN where undefined. Arrays of one shape."""

    estimate: Array
    low: Array
    high: Array


def jackknife(estimate: Array, replicates: Array, level: float = 0.95) -> Interval:
    """The delete-one jackknife's interval, estimate +- t(n - 1) se.

    Args:
        estimate: the statistic on everything, any shape.
        replicates: the statistic with the i-th unit left out, ``(n, *shape)``.
        level: of confidence.
    """
    n = len(replicates)
    error = np.sqrt((n - 1) / n * ((replicates - replicates.mean(0)) ** 2).sum(0))
    half = stats.t.ppf((1 + level) / 2, n - 1) * error
    return Interval(estimate, estimate - half, estimate + half)


def crossed_jackknife(estimate: Array, replicates: Sequence[Array]) -> Interval:
    """The jackknife of a statistic over groups of units that all met the same n others, as models meet noises.

    Args:
        estimate: the statistic on everything, any shape.
        replicates: for each group the statistic with its k-th unit and the i-th of the others left out, ``(K, n, *shape)``.
    """
    squared, freedom = np.zeros_like(estimate), np.zeros_like(estimate)
    rows = [each.mean(1) for each in replicates]
    columns = np.mean([each.mean(0) for each in replicates], 0)
    for units in (*rows, columns):
        n = len(units)
        part = (n - 1) / n * ((units - units.mean(0)) ** 2).sum(0)
        squared, freedom = squared + part, freedom + part**2 / (n - 1)
    half = stats.t.ppf(0.975, squared**2 / freedom) * np.sqrt(squared)
    return Interval(estimate, estimate - half, estimate + half)


def mean_interval(values: Array, axis: int = -1, degree: int = 1) -> Interval:
    """Mean with its 95 % t interval along an axis of independent values; bounds are NaN for fewer than two.

    Args:
        values: any shape.
        axis: the axis of independent values.
        degree: 2 for rows of a pairwise mean, such as nulls, into which every value enters twice: the variance of a U-statistic of
            degree 2 is 4 Var(row) / n (Hoeffding 1948).
    """
    values = np.asarray(values, dtype=np.float64)
    n = values.shape[axis]
    mean = values.mean(axis)
    if n < 2:
        return Interval(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    with np.errstate(invalid="ignore"):  # the PSNR of equal images is infinite
        half = degree * stats.t.ppf(0.975, n - 1) * values.std(axis, ddof=1) / np.sqrt(n)
    return Interval(mean, mean - half, mean + half)
