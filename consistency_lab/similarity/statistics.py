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

Where samples came in blocks, each null is a mean over the other samples of its own block. Their mean is as unbiased as over all, but rows
of one block share images. With `MANY` blocks or more, whose images are independent, one block is left out at a time; with fewer, one sample
at a time, from its own block only, which is a little too wide where blocks are small. Simulated in tests/similarity/test_blocks.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from consistency_lab.intervals import Array, Interval, crossed_jackknife, jackknife, without_bounds

MANY = 20  # blocks from which on a jackknife leaves out one of them at a time
Blocks = NDArray[np.int32] | None  # the number of each sample's block ``(N,)``; None where there is one

COLLAPSED = 1e-8  # a null below this means that the images do not depend on the noise: the score is undefined


def pairs_of(models: int) -> list[tuple[int, int]]:
    """Index pairs (first, second), first < second, in the order of the ``pair`` dimension."""
    return list(combinations(range(models), 2))


def score(distance: Array, null: Array) -> Array:
    """1 - distance / null elementwise; NaN where the null is below `COLLAPSED`."""
    distance, null = np.asarray(distance, dtype=np.float64), np.asarray(null, dtype=np.float64)
    defined = null > COLLAPSED
    return np.where(defined, 1.0 - distance / np.where(defined, null, 1.0), np.nan)


def family_score(distance: Array, null: Array, models: int, blocks: Blocks = None) -> Interval:
    """The score over all pairs, with an interval over models and noise: other models like these, started from other noise.

    Args:
        distance, null: per sample, ``(pairs, N, ...)`` in the order of `pairs_of`; nulls as in `pair_score`. NaN bounds if N < 3.
        models: K >= 3. The interval covers as the module says: 93 to 97 %, less where images explode or models differ very much.
        blocks: in which block each sample met its null.
    """
    return _over_units(distance, null, pairs_of(models), [range(models)], blocks)


def cross_score(distance: Array, null: Array, first: int, second: int) -> Interval:
    """The score over all pairs of a model of one family with a model of another, with an interval over both families' models and noise.

    Args:
        distance, null: per sample, ``(first, second, N, ...)``: model i of one with model j of the other; nulls as in `pair_score`.
        first, second: models of the two families, two or more each.
    """
    d, u = (np.reshape(x, (first * second, *np.shape(x)[2:])) for x in (distance, null))
    return _over_units(d, u, *_crossing(first, second))


def explained_share(whole: tuple[Array, Array], left: tuple[Array, Array], first: int, second: int) -> Interval:
    """The share of the agreement of two families that is gone when something is taken away from their images: 1 - left / whole.

    Agreement is the mean of null - distance: for the squared error twice the covariance, over noise, of two models' images. 1: without it
    they do not agree any more. 0: they agree as much as before. Below 0: what was taken away had hidden some.

    Args:
        whole, left: distance and null per sample, ``(first, second, N)`` each, of the images and of what is left of them.
        first, second: models of the two families, two or more each.

    Returns:
        the share with a symmetric interval over both families' models and noise; NaN where there is no agreement to share out.
    """
    pairs, groups = _crossing(first, second)

    def flat(values: Array) -> Array:
        return np.reshape(values, (first * second, *np.shape(values)[2:])).astype(np.float64)

    (e, v), (d, u) = ((flat(distance), flat(null)) for distance, null in (left, whole))
    estimate = _gone((e.mean((0, 1)), v.mean((0, 1))), (d.mean((0, 1)), u.mean((0, 1))))
    if d.shape[1] < 3:
        return without_bounds(estimate)
    replicates = zip(_without_units(e, v, pairs, groups), _without_units(d, u, pairs, groups), strict=True)
    return crossed_jackknife(estimate, [_gone(*each) for each in replicates])


def _gone(left: tuple[Array, Array], whole: tuple[Array, Array]) -> Array:
    """1 - agreement of what is left / agreement of the whole, each from (distance, null)."""
    agreement = whole[1] - whole[0]
    return score(left[1] - left[0], agreement)


def _crossing(first: int, second: int) -> tuple[list[tuple[int, int]], list[range]]:
    """The pairs of a model of one family with a model of another, and the two families, as places among all models."""
    pairs = [(i, first + j) for i in range(first) for j in range(second)]
    return pairs, [range(first), range(first, first + second)]


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
    distance: Array,
    null: Array,
    pairs: Sequence[tuple[int, int]],
    groups: Sequence[Sequence[int]],
    blocks: Blocks = None,
) -> Interval:
    """The score over pairs ``(pairs, N, ...)``, with an interval over groups of models and the noise that they all share."""
    distance, null = np.asarray(distance, dtype=np.float64), np.asarray(null, dtype=np.float64)
    estimate = score(distance.mean((0, 1)), null.mean((0, 1)))
    if distance.shape[1] < 3:
        return without_bounds(estimate)
    left = [score(*each) for each in _without_units(distance, null, pairs, groups, blocks)]
    return in_logarithms(crossed_jackknife(estimate, left))


def _without_units(
    distance: Array,
    null: Array,
    pairs: Sequence[tuple[int, int]],
    groups: Sequence[Sequence[int]],
    blocks: Blocks = None,
) -> list[tuple[Array, Array]]:
    """For each group, means of distance and null with each of its models and each sample left out, ``(models, N, ...)`` each."""
    found = []
    for models in groups:
        weights = _weights_without(pairs, models)
        rest, others = (np.tensordot(weights, x, 1) for x in (distance, null))
        found.append(without_each_sample(rest, others, blocks))
    return found


def _weights_without(pairs: Sequence[tuple[int, int]], models: Sequence[int]) -> Array:
    """What each pair weighs in the mean over pairs without each of a group's models, ``(models, pairs)``.

    The group's pairs together weigh what they did, and those that are left share it.
    """
    holds = np.array([[model in pair for pair in pairs] for model in models])
    theirs = holds.any(0)
    kept = theirs & ~holds
    weights: Array = np.where(theirs, kept * theirs.sum() / kept.sum(1, keepdims=True), 1.0) / len(pairs)
    return weights


def pair_score(distance: Array, null: Array, axis: int = -1, blocks: Blocks = None) -> Interval:
    """The score of one pair, with an interval over noise: "this pair, not this family".

    Deleting sample i removes its distance and, from the null, every (i, j) and (j, i): a U-statistic of order two, whose
    replicates follow from the per-sample nulls without another pass.

    Args:
        distance: per sample.
        null: per sample, the mean over j != i of both directions; the same shape.
        axis: the axis of samples.
        blocks: in which block each sample met its null.
    """
    d, u = (np.moveaxis(np.asarray(x, dtype=np.float64), axis, 0) for x in (distance, null))
    estimate = score(d.mean(0), u.mean(0))
    if len(d) < 3:
        return without_bounds(estimate)
    left = score(*without_each_sample(d[None], u[None], blocks))[0]
    return in_logarithms(jackknife(estimate, left))


def without_each_model(values: Array, models: int) -> list[Array]:
    """Means over the pairs ``(pairs, ...)`` that do not hold model 0, 1, ...; none for two models, of whose pair nothing is left."""
    kept = [[p for p, pair in enumerate(pairs_of(models)) if model not in pair] for model in range(models)]
    return [values[keep].mean(0) for keep in kept] if models > 2 else []


def without_each_sample(distance: Array, null: Array, blocks: Blocks = None) -> tuple[Array, Array]:
    """Means over samples ``(K, N, ...)`` of distance and null with each sample left out in turn, ``(K, N, ...)``.

    The null is a mean over all i != j, (n - 1) of them in each row u_i: sample i is in 2 (n - 1) u_i of their sum (n - 1) sum(u). Within
    blocks that holds of the rows of its own block alone. With `MANY` blocks or more it is each block that is left out, ``(K, B, ...)``.
    """
    n = distance.shape[1]
    if blocks is None:
        return (distance.sum(1, keepdims=True) - distance) / (n - 1), (null.sum(1, keepdims=True) - 2 * null) / (n - 2)
    sizes = np.bincount(blocks)
    along = (1, -1, *[1] * (distance.ndim - 2))
    if len(sizes) >= MANY:
        rest = (n - sizes).reshape(along)
        left = ((x.sum(1, keepdims=True) - sums_of(x, blocks)) / rest for x in (distance, null))
        return next(left), next(left)
    m, own = sizes[blocks].reshape(along), sums_of(null, blocks)[:, blocks]
    # Of a block of two nothing is left but a sample without a null.
    within = np.where(m > 2, (m - 1) * (own - 2 * null) / np.maximum(m - 2, 1), 0.0)
    nulls = (null.sum(1, keepdims=True) - own + within) / np.where(m > 2, n - 1, n - 2)
    return (distance.sum(1, keepdims=True) - distance) / (n - 1), nulls


def sums_of(values: Array, blocks: NDArray[np.int32]) -> Array:
    """Sums over the samples ``(K, N, ...)`` of each block, ``(K, B, ...)``."""
    return np.stack([values[:, blocks == block].sum(1) for block in range(blocks.max() + 1)], 1)


def in_logarithms(interval: Interval) -> Interval:
    """A score's symmetric interval made symmetric in log(distance / null), by the delta method: 1 - ratio exp(-+ half / ratio).

    Distances are skewed, and their ratio to the null is multiplied by what it is uncertain by. No bound exceeds 1.
    """
    ratio, half = 1 - interval.estimate, interval.high - interval.estimate
    relative = np.divide(half, ratio, out=np.zeros_like(ratio), where=ratio > 0)
    return Interval(interval.estimate, 1 - ratio * np.exp(relative), 1 - ratio * np.exp(-relative))
