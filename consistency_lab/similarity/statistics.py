"""The consistency score and its intervals.

    score = 1 - E d(A_i, B_i) / E d(A_i, B_j),  i != j

1: the same noise gives the same image. 0: no more alike than under other noise. For the mean squared error it is Lin's concordance
coefficient (Lin 1989), computed with unbiased (co)variances.

K models give K (K - 1) / 2 pairs that share models and are not independent, and all of them met the same noise. An interval for a family
therefore leaves out one model and one sample at a time, and holds both: other models like these, from other noise (`crossed_jackknife`).
With two models there is only the noise to vary, and the interval speaks of this pair alone. All intervals of scores are symmetric in
log(distance / null).

Simulated coverage of the nominal 95 % (tests/similarity/test_coverage.py; 3, 4, 6 and 8 models, 32 and 256 samples):

* models that differ, samples that are hard for all (log-normal, .7), both, a spread of the models' squared errors (log-normal, .5), and
  vectors under the mean squared error: .926 to .973.
* Falls short: a strong spread between models (log-normal, .8), .906 to .924. Exploding images (one in 256 of each model's, its distance
  15 to 100 times the mean) with 32 samples, .61 to .80, for most such sets hold none; with 256 samples .918 to .941. The trimmed score's
  interval covers its own target there. A pair's interval is then worse, for it has only the samples: .39 with 32, .76 with 256, .91 with
  1,024.
* Too wide: two families of two or three models each where models and noise weigh alike, .98 to .99.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from consistency_lab.intervals import Array, Interval, crossed_jackknife, jackknife, without_bounds

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
    """The score over all pairs, with an interval over models and noise: other models like these, started from other noise.

    Args:
        distance, null: per sample, ``(pairs, N, ...)`` in the order of `pairs_of`; nulls as in `pair_score`. NaN bounds if N < 3.
        models: K >= 3. The interval covers as the module says: 93 to 97 %, less where images explode or models differ very much.
    """
    return _over_units(distance, null, pairs_of(models), [range(models)])


def cross_score(distance: Array, null: Array, first: int, second: int) -> Interval:
    """The score over all pairs of a model of one family with a model of another, with an interval over both families' models and noise.

    Args:
        distance, null: per sample, ``(first, second, N, ...)``: model i of one with model j of the other; nulls as in `pair_score`.
        first, second: models of the two families, two or more each.
    """
    pairs = [(i, first + j) for i in range(first) for j in range(second)]
    d, u = (np.reshape(x, (first * second, *np.shape(x)[2:])) for x in (distance, null))
    return _over_units(d, u, pairs, [range(first), range(first, first + second)])


def within_score(distance: Array, null: Array, sizes: Sequence[int]) -> Interval:
    """The score over all pairs within families, pooled over families, with an interval over their models and noise.

    Args:
        distance, null: per sample, ``(models, models, N, ...)``, symmetric; families are consecutive blocks. Nulls as in `pair_score`.
        sizes: models of each family, three or more each.
    """
    ends = np.cumsum(sizes).tolist()
    families = [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    pairs = [pair for family in families for pair in combinations(family, 2)]
    rows, columns = zip(*pairs, strict=True)
    return _over_units(distance[rows, columns], null[rows, columns], pairs, families)


def _over_units(
    distance: Array, null: Array, pairs: Sequence[tuple[int, int]], groups: Sequence[Sequence[int]]
) -> Interval:
    """The score over pairs ``(pairs, N, ...)``, with an interval over groups of models and the noise that they all share."""
    distance, null = np.asarray(distance, dtype=np.float64), np.asarray(null, dtype=np.float64)
    estimate = score(distance.mean((0, 1)), null.mean((0, 1)))
    if distance.shape[1] < 3:
        return without_bounds(estimate)
    left = []
    for models in groups:
        theirs = [p for p, pair in enumerate(pairs) if set(pair) & set(models)]
        kept = [[p for p in theirs if model not in pairs[p]] for model in models]
        rest = (np.stack([_mean_with(x, theirs, keep) for keep in kept]) for x in (distance, null))
        left.append(score(*without_each_sample(*rest)))
    return in_logarithms(crossed_jackknife(estimate, left))


def _mean_with(values: Array, group: Sequence[int], kept: Sequence[int]) -> Array:
    """The mean over pairs ``(pairs, ...)``, with that over a group's pairs, whose weight stays as it is, taken over those that are kept."""
    mean = values[kept].mean(0)
    return (
        mean
        if len(group) == len(values)
        else values.mean(0) + len(group) / len(values) * (mean - values[group].mean(0))
    )


def pair_score(distance: Array, null: Array, axis: int = -1) -> Interval:
    """The score of one pair, with an interval over noise: "this pair, not this family".

    Deleting sample i removes its distance and, from the null, every (i, j) and (j, i): a U-statistic of order two, whose
    replicates follow from the per-sample nulls without another pass.

    Args:
        distance: per sample.
        null: per sample, the mean over j != i of both directions; the same shape.
        axis: the axis of samples.
    """
    d, u = (np.moveaxis(np.asarray(x, dtype=np.float64), axis, 0) for x in (distance, null))
    estimate = score(d.mean(0), u.mean(0))
    if len(d) < 3:
        return without_bounds(estimate)
    left = score(*without_each_sample(d[None], u[None]))[0]
    return in_logarithms(jackknife(estimate, left))


def without_each_model(values: Array, models: int) -> list[Array]:
    """Means over the pairs ``(pairs, ...)`` that do not hold model 0, 1, ...; none for two models, of whose pair nothing is left."""
    kept = [[p for p, pair in enumerate(pairs_of(models)) if model not in pair] for model in range(models)]
    return [values[keep].mean(0) for keep in kept] if models > 2 else []


def without_each_sample(distance: Array, null: Array) -> tuple[Array, Array]:
    """Means over samples ``(K, N, ...)`` of distance and null with each sample left out in turn, ``(K, N, ...)``.

    The null is a mean over all i != j, (n - 1) of them in each row u_i: sample i is in 2 (n - 1) u_i of their sum (n - 1) sum(u).
    """
    n = distance.shape[1]
    return (distance.sum(1, keepdims=True) - distance) / (n - 1), (null.sum(1, keepdims=True) - 2 * null) / (n - 2)


def in_logarithms(interval: Interval) -> Interval:
    """A score's symmetric interval made symmetric in log(distance / null), by the delta method: 1 - ratio exp(-+ half / ratio).

    Distances are skewed, and their ratio to the null is multiplied by what it is uncertain by. No bound exceeds 1.
    """
    ratio, half = 1 - interval.estimate, interval.high - interval.estimate
    relative = np.divide(half, ratio, out=np.zeros_like(ratio), where=ratio > 0)
    return Interval(interval.estimate, 1 - ratio * np.exp(relative), 1 - ratio * np.exp(-relative))
