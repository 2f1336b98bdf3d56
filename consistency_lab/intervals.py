"""95 % intervals: the delete-one jackknife, and t for means."""

from __future__ import annotations

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


def jackknife(estimate: Array, replicates: Array) -> Interval:
    """The delete-one jackknife's 95 % interval, estimate +- t(n - 1) se.

    Args:
        estimate: the statistic on everything, any shape.
        replicates: the statistic with the i-th unit left out, ``(n, *shape)``.
    """
    n = len(replicates)
    error = np.sqrt((n - 1) / n * ((replicates - replicates.mean(0)) ** 2).sum(0))
    half = stats.t.ppf(0.975, n - 1) * error
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
