"""Does it matter to which of two families a model belongs? A test by exchanging labels, for a whole grid of metrics and noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from consistency_lab.errors import UserError
from consistency_lab.intervals import Array
from consistency_lab.similarity.quantities import higher_is_alike

_TOGETHER = 2**14  # assignments that are gone through at a time
LEAST = 4  # models per family: with 3 + 3 there are ten ways to share the labels out, and no p below 0.1


class LabelTest(NamedTuple):
    """The result of exchanging labels.

    Attributes:
        statistic: mean distance between the families minus the mean within them, ``(*grid)``, in the distance's own units.
        p: for each cell the share of label assignments whose largest standardised statistic over the grid is at least this cell's
            (max-T, Westfall & Young 1993): corrected for looking at the whole grid, ``(*grid)``.
        p_any: the smallest of them: does any cell tell the families apart?
        assignments: how many ways there are to share the labels out; no p is below one over it.
    """

    statistic: Array
    p: Array
    p_any: float
    assignments: int


def label_permutation(distance: Array, first: int, second: int) -> LabelTest:
    """Test "models of two families are exchangeable" against "models of two families are further apart than models of one".

    All ways to share the labels out are gone through, so the test is exact; cells whose statistic never varies, or is not finite, are left
    out (p = 1).

    Args:
        distance: means over samples of every pair of models, ``(models, models, *grid)``, symmetric; the first family first.
        first, second: models of each family.

    Raises:
        UserError: fewer than `LEAST` models in a family, for which no small p is possible.
    """
    if min(first, second) < LEAST:
        raise UserError(
            f"a test of family against seed needs {LEAST} + {LEAST} models or more, not {first} + {second}: with fewer there are too few "
            "ways to share the labels out for a small p."
        )
    models = first + second
    rows, columns = np.triu_indices(models, 1)
    flat = np.asarray(distance, dtype=np.float64)[rows, columns].reshape(len(rows), -1)
    chosen = list(combinations(range(models), first))
    if (
        first == second
    ):  # a family and its complement are one assignment: those that hold the first model, which come first
        chosen = chosen[: len(chosen) // 2]
    parts = [chosen[start : start + _TOGETHER] for start in range(0, len(chosen), _TOGETHER)]
    with np.errstate(invalid="ignore"):  # the PSNR of equal images is infinite: such a cell has no statistic
        statistics = np.concatenate([_statistics(part, rows, columns, flat) for part in parts], 1)  # (grid, A)
        centred = statistics - statistics.mean(1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(1))
        usable = deviation > 1e-12 * np.abs(flat).max(0, initial=1e-300)
    standard = np.where(usable[:, None], centred / np.where(usable, deviation, 1.0)[:, None], -np.inf)
    largest = standard.max(0)  # over the grid, for each assignment
    slack = 1e-9  # equal sums in another order are one value
    reached = np.count_nonzero(largest >= standard[:, :1] - slack, axis=1)
    p = np.where(usable, reached / len(chosen), 1.0)
    shape = np.shape(distance)[2:]
    return LabelTest(statistics[:, 0].reshape(shape), p.reshape(shape), float(p.min()), len(chosen))


def _statistics(
    chosen: Sequence[tuple[int, ...]], rows: NDArray[np.int64], columns: NDArray[np.int64], flat: Array
) -> Array:
    """Mean between the families minus mean within them, for each choice of the first family's models: A of them, pairs ``(rows, columns)``
    and their distances ``(pairs, grid)`` -> ``(grid, A)``."""
    members = np.fromiter(chain.from_iterable(chosen), dtype=np.int64).reshape(len(chosen), -1)
    first = np.zeros((columns[-1] + 1, len(chosen)))
    first[members.T, np.arange(len(chosen))] = 1.0
    between = np.abs(first[rows] - first[columns])
    across = between[:, 0].sum()
    within = len(rows) - across
    found: Array = (1 / across + 1 / within) * (flat.T @ between) - flat.sum(0)[:, None] / within
    return found


def square(comparison: xr.Dataset, variable: str = "distance") -> Array:
    """The values of every pair of models ``(models, models, sample, t, metric)``: symmetric, 0 on the diagonal."""
    values = comparison[variable].transpose("pair", "sample", "t", "metric").values.astype(np.float64)
    models = comparison.sizes["model"]
    full = np.zeros((models, models, *values.shape[1:]))
    full[comparison["first"].values, comparison["second"].values] = values
    return full + np.swapaxes(full, 0, 1)


def family_test(comparison: xr.Dataset, family: Sequence[str]) -> xr.Dataset:
    """`label_permutation` on a comparison of two families: ``statistic``, ``p (t, metric)``, and ``p_any`` with its ``assignments``.

    Metrics of which more is alike (PSNR) are turned round, as the comparison says of them.

    Args:
        comparison: of `consistency_lab.compare`.
        family: which models form the first family, by name; the others are the second.

    Raises:
        UserError: a name that is not compared, or too few models on a side.
    """
    names = [str(name) for name in comparison["model"].values]
    if missing := [name for name in family if name not in names]:
        raise UserError(f"{missing[0]!r} is not one of the models of the comparison: {', '.join(names)}.")
    order = [names.index(name) for name in family]
    order += [i for i in range(len(names)) if i not in order]
    turned = [higher_is_alike(comparison, str(metric)) for metric in comparison["metric"].values]
    sign = np.where(turned, -1.0, 1.0)
    distance = square(comparison).mean(2)[np.ix_(order, order)] * sign
    found = label_permutation(distance, len(family), len(names) - len(family))
    dims, coords = ("t", "metric"), {"t": comparison["t"], "metric": comparison["metric"]}
    single = {"p_any": found.p_any, "assignments": found.assignments}
    return xr.Dataset({"statistic": (dims, found.statistic), "p": (dims, found.p), **single}, coords=coords)
