"""95 % intervals: the delete-one jackknife along one axis and along two that cross, and t for means; and the one form that they have.

Wherever a number stands with its interval, in a result, a row or a table, the three are named ``X``, ``X_low`` and ``X_high``: written by
`add_interval` and `as_columns`, read by `interval_of`. Tables of curves have one number in each row, whose name stands in another
column: there the three are ``value``, ``low`` and ``high`` (`as_value`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Array = NDArray[np.float64]

ENDS = ("", "_low", "_high")


class Interval(NamedTuple):
    """An estimate with the bounds of its 95 % interval; NaN where undefined. Arrays of one shape, or numbers."""

    estimate: Any
    low: Any
    high: Any


def jackknife(estimate: Array, replicates: Array, level: float = 0.95) -> Interval:
    """The delete-one jackknife's interval, estimate +- t(n - 1) se; its bounds are NaN for fewer than two units.

    Args:
        estimate: the statistic on everything, any shape.
        replicates: the statistic with the i-th unit left out, ``(n, *shape)``.
        level: of confidence.
    """
    if len(replicates) < 2:
        return without_bounds(estimate)
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
        return without_bounds(mean)
    with np.errstate(invalid="ignore"):  # the PSNR of equal images is infinite
        half = degree * stats.t.ppf(0.975, n - 1) * values.std(axis, ddof=1) / np.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def without_bounds(estimate: Any) -> Interval:
    """An estimate whose interval is not known: both bounds are NaN."""
    estimate = np.asarray(estimate, dtype=np.float64)
    return Interval(estimate, np.full_like(estimate, np.nan), np.full_like(estimate, np.nan))


def stacked(intervals: Iterable[Iterable[Any]]) -> Interval:
    """Intervals of one shape as one, ``(n, *shape)``."""
    return Interval(*(np.stack([np.asarray(x) for x in each]) for each in zip(*intervals, strict=True)))


def interval_names(*names: str) -> list[str]:
    """``X``, ``X_low`` and ``X_high`` of each."""
    return [f"{name}{end}" for name in names for end in ENDS]


def estimates(names: Iterable[Any]) -> list[str]:
    """Those names that have both ends of an interval among the others."""
    known = [str(name) for name in names]
    return [name for name in known if {f"{name}{end}" for end in ENDS} <= set(known)]


def is_bound(name: object) -> bool:
    """Whether it is the name of an end of an interval."""
    return str(name).endswith(ENDS[1:])


def add_interval(result: xr.Dataset, name: str, dims: tuple[str, ...], interval: Iterable[Any]) -> None:
    """Put ``name``, ``name_low`` and ``name_high`` into a result."""
    result.update({key: (dims, values) for key, values in zip(interval_names(name), interval, strict=True)})


def interval_of(
    container: xr.Dataset | pd.DataFrame | pd.Series | Mapping[Any, Any], name: str, default: float | None = None
) -> Interval:
    """The number of that name with its interval, as the result or the row holds it; bounds that it lacks are NaN.

    Args:
        container: a result of which the caller has selected what it wants, a table, a row of one, or the values of a row.
        name: of the estimate.
        default: the estimate where the container has none of that name.

    Returns:
        Arrays with the container's dimensions; plain numbers where there are none.

    Raises:
        KeyError: no such estimate, and no default.
    """
    if default is not None and name not in container:
        return Interval(*(_read(part) for part in without_bounds(default)))
    estimate = _read(container[name])
    ends = (container.get(key) for key in interval_names(name)[1:])
    return Interval(estimate, *(estimate * np.nan if end is None else _read(end) for end in ends))


def as_columns(name: str, interval: Iterable[Any]) -> dict[str, Any]:
    """What `interval_of` reads, for rows of tables: ``{name: ..., name_low: ..., name_high: ...}``."""
    return dict(zip(interval_names(name), map(_read, interval), strict=True))


def as_value(interval: Iterable[Any]) -> dict[str, Any]:
    """For tables with one number in a row, whose name stands in another column: ``{"value": ..., "low": ..., "high": ...}``."""
    return dict(zip(("value", "low", "high"), map(_read, interval), strict=True))


def _read(values: Any) -> Any:
    """As an array, or as a number where it has no dimensions; None, which is how JSON says it, is NaN."""
    found = np.asarray(values)
    if found.dtype.kind == "O":
        found = found.astype(np.float64)
    return found if found.ndim else found.item()
