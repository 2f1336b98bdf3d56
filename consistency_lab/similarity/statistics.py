"""The consistency score and its intervals.

    score = 1 - E d(A_i, B_i) / E d(A_i, B_j),  i != j

1: the same noise gives the same image. 0: no more alike than under other noise. For the mean squared error it is Lin's concordance
coefficient (Lin 1989), computed with unbiased (co)variances.

K models give K (K - 1) / 2 pairs that share models and are not independent. An interval for the family of models therefore deletes one
model at a time; with two models there is only the noise to vary, and the interval speaks of this pair alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from consistency_lab.intervals import Array, Interval, jackknife

COLLAPSED = 1e-8  # a null below this means that the images do not depend on the noise: the score is undefined


def pairs_of(models: int) -> list[tuple[int, int]]:
    """Index pairs (first, second), first < second, in the order of the ``pair`` dimension."""
    return list(combinations(range(models), 2))


def score(distance: Array, null: Array) -> Array:
    """1 - distance / null elementwise; NaN where the null is below `COLLAPSED`."""
    distance, null = np.asarray(distance, dtype=np.float64), np.asarray(null, dtype=np.float64)
    defined = null > COLLAPSED
    return np.where(defined, 1.0 - distance / np.where(defined, null, 1.0), np.nan)


def family_score(distance: Array, null: Array, models: int) -> Interval:
    """The score over all pairs, with an interval over models (and the noise that they share).

    Args:
        distance, null: means over samples, ``(pairs, ...)`` in the order of `pairs_of`.
        models: K >= 3.
    """
    pairs = pairs_of(models)
    without = [[p for p, pair in enumerate(pairs) if model not in pair] for model in range(models)]
    replicates = np.stack([score(distance[keep].mean(0), null[keep].mean(0)) for keep in without])
    return _bounded(jackknife(score(distance.mean(0), null.mean(0)), replicates))


def cross_score(distance: Array, null: Array, first: int, second: int) -> Interval:
    """The score over all pairs of a model of one family with a model of another, with an interval over both families' models.

    Args:
        distance, null: means over samples, ``(first, second, ...)``: model i of one with model j of the other.
        first, second: models of the two families, two or more each.
    """
    estimate, families = score(distance.mean((0, 1)), null.mean((0, 1))), []
    for axis, n in enumerate((first, second)):
        kept = [np.delete(np.arange(n), i) for i in range(n)]
        rest = [score(distance.take(k, axis).mean((0, 1)), null.take(k, axis).mean((0, 1))) for k in kept]
        families.append(np.stack(rest))
    return _over_families(estimate, families)


def within_score(distance: Array, null: Array, sizes: Sequence[int]) -> Interval:
    """The score over all pairs within families, pooled over families, with an interval over their models.

    Args:
        distance, null: means over samples, ``(models, models, ...)``, symmetric; families are consecutive blocks.
        sizes: models of each family, three or more each.
    """
    family = np.repeat(np.arange(len(sizes)), sizes)

    def over(models: NDArray[np.int64]) -> Array:
        pairs = [(i, j) for i, j in combinations(models.tolist(), 2) if family[i] == family[j]]
        rows, columns = zip(*pairs, strict=True)
        return score(distance[rows, columns].mean(0), null[rows, columns].mean(0))

    everyone = np.arange(len(family))
    replicates = [np.stack([over(np.delete(everyone, i)) for i in everyone[family == f]]) for f in range(len(sizes))]
    return _over_families(over(everyone), replicates)


def _over_families(estimate: Array, replicates: Sequence[Array]) -> Interval:
    """The several-sample jackknife: the squared error is the sum over families of (n - 1) / n times the spread of the statistics that
    remain when one of its n models is left out; t with the smallest family's n - 1.
    """
    squared = sum((len(r) - 1) / len(r) * ((r - r.mean(0)) ** 2).sum(0) for r in replicates)
    half = stats.t.ppf(0.975, min(map(len, replicates)) - 1) * np.sqrt(squared)
    return _bounded(Interval(estimate, estimate - half, estimate + half))


def pair_score(distance: Array, null: Array, axis: int = -1) -> Interval:
    """The score of one pair, with an interval over noise: "this pair, not this family".

    Deleting sample i removes its distance and, from the null, every (i, j) and (j, i): a U-statistic of order two, whose
    replicates follow from the per-sample nulls without another pass.

    Args:
        distance: per sample.
        null: per sample, the mean over j != i of both directions; the same shape.
        axis: the axis of samples.
    """
    d, u = (
        np.moveaxis(np.asarray(distance, dtype=np.float64), axis, 0),
        np.moveaxis(np.asarray(null, dtype=np.float64), axis, 0),
    )
    n = len(d)
    estimate = score(d.mean(0), u.mean(0))
    if n < 3:
        return Interval(estimate, np.full_like(estimate, np.nan), np.full_like(estimate, np.nan))
    d_without = (d.sum(0) - d) / (n - 1)
    u_without = (u.sum(0) - 2 * u) / (
        n - 2
    )  # the sum over all i != j is (n - 1) sum(u); sample i is in 2 (n - 1) u_i of it
    return _bounded(jackknife(estimate, score(d_without, u_without)))


def _bounded(interval: Interval) -> Interval:
    """No score exceeds 1: a bound beyond it is drawn back, which cannot change whether the interval covers the truth."""
    return interval._replace(high=np.minimum(interval.high, 1.0))
