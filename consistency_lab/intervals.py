"""95 % intervals: the delete-one jackknife along one axis and along two that cross, and t for means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

if TYPE_CHECKING:
    import xarray as xr

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
    half = stats.t.ppf((1 + level) / 2, len(replicates) - 1) * np.sqrt(_squared_error(replicates))
    return Interval(estimate, estimate - half, estimate + half)


def crossed_jackknife(estimate: Array, replicates: Sequence[Array]) -> Interval:
    """The 95 % interval of a statistic of units that all met the same others, as models meet noises: two kinds of chance that cross.

    The variance is split as for errors that cluster in two ways (Cameron, Gelbach & Miller 2011; the model is that of Owen's pigeonhole
    bootstrap, 2007): V(units) + V(others) - V(unit x other), each the delete-one jackknife's. The first holds the last, so V(others) -
    V(unit x other), never below 0, is what the others add of their own. Each part has its own t, and half-widths add in squares (Zou &
    Donner 2008): a sum of variances with one t has degrees of freedom that three models estimate too badly.

    Args:
        estimate: the statistic on everything, any shape.
        replicates: for each group of units the statistic with its k-th unit and the i-th of the others left out, ``(K, n, *shape)``. The
            squared errors of several groups add up, with Welch's degrees of freedom.
    """
    squared, freedom, crossed = (np.zeros(np.shape(estimate)) for _ in range(3))
    for each in replicates:
        units, others, part = each.mean(1), each.mean(0), _squared_error(each.mean(1))
        both = each - units[:, None] - others + units.mean(0)
        k, n = each.shape[:2]
        crossed += (k - 1) / k * (n - 1) / n * (both**2).sum((0, 1))
        squared, freedom = squared + part, freedom + part**2 / (k - 1)
    freedom = np.divide(squared**2, freedom, out=np.ones_like(squared), where=freedom > 0)
    own = np.maximum(_squared_error(np.mean([each.mean(0) for each in replicates], 0)) - crossed, 0.0)
    n = replicates[0].shape[1]
    half = np.sqrt(stats.t.ppf(0.975, freedom) ** 2 * squared + stats.t.ppf(0.975, n - 1) ** 2 * own)
    return Interval(estimate, estimate - half, estimate + half)


def _squared_error(replicates: Array) -> Array:
    """The delete-one jackknife's, from ``(n, *shape)``."""
    n = len(replicates)
    return (n - 1) / n * ((replicates - replicates.mean(0)) ** 2).sum(0)


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


def add_interval(result: xr.Dataset, name: str, dims: tuple[str, ...], interval: Interval) -> None:
    """Put ``name``, ``name_low`` and ``name_high`` into a result."""
    for key, values in zip((name, f"{name}_low", f"{name}_high"), interval, strict=True):
        result[key] = (dims, values)
