"""Scores that a few samples do not decide, the share that the worst one holds, and the family without each model.

All from distances and nulls per sample, ``(pairs, N, ...)``, as in `statistics`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consistency_lab.intervals import Array, Interval, crossed_jackknife, jackknife
from consistency_lab.similarity.statistics import in_logarithms, score, without_each_model, without_each_sample

TRIMMED = 0.1  # share of the samples that the trimmed score leaves out at either end


def trimmed_score(distance: Array, null: Array, models: int) -> Interval:
    """The score of a family over its typical samples: the tenth with the largest and the tenth with the smallest distance are left out.

    Samples are ranked by their distance averaged over pairs, and the same ones leave the distance and the null (in part, where 0.1 N is
    not whole). What a sample adds to the null is its pseudo-value (`pseudo_values`), so an image that exploded leaves the null of all
    other samples too, but for its chance likeness to them. Without heavy tails this is the plain score, up to sampling error and to the
    skewness of the distances: where few samples hold much of the distance it is higher, the score of typical samples and not of all.

    Args:
        distance, null: per sample, ``(pairs, N, ...)`` in the order of `pairs_of`; nulls as in `pair_score`. N >= 3.
        models: K >= 2.

    Returns:
        ``(...)`` with an interval over models and noise, or over noise alone for two models. The jackknife is consistent for trimmed
        means (Shao & Tu 1995).
    """
    d = np.stack([distance.mean(0), *without_each_model(distance, models)])
    v = np.stack([pseudo_values(null.mean(0)), *map(pseudo_values, without_each_model(null, models))])
    order = d.argsort(1)
    d, v = (np.take_along_axis(x, order, 1) for x in (d, v))
    estimate = score(_trimmed(d[:1])[0], _trimmed(v[:1])[0])
    left = score(*(_trimmed_without(x) for x in (d, v)))
    left = np.take_along_axis(left, order.argsort(1), 1)  # by sample again, and no longer by rank
    return in_logarithms(crossed_jackknife(estimate, [left[1:]]) if models > 2 else jackknife(estimate, left[0]))


def pseudo_values(null: Array) -> Array:
    """What each sample adds to the mean of a null over all i != j: the jackknife's pseudo-values, ``(N, ...)``.

    v_i = mean u + 2 (n - 1) / (n - 2) (u_i - mean u). Their mean is the null's; that of all but one is, exactly, the null without that
    sample, while the other rows u_j still hold its distance to j. For unrelated models the distance d_i scatters around v_i.

    Args:
        null: per sample, ``(N, ...)``, the mean over j != i of both directions. N >= 3.
    """
    n, mean = len(null), null.mean(0)
    return mean + 2 * (n - 1) / (n - 2) * (null - mean)


def trimmed_mean(values: Array) -> Array:
    """The mean of samples ``(N, ...)`` without the tenth at either end (see `trimmed_score`): ``(...)``."""
    return _trimmed(np.sort(values, axis=0)[None])[0]


def _kept(n: int) -> Array:
    """How much of each of n ranked samples a trimmed mean keeps: 0 at the ends, 1 between, a part where `TRIMMED` n is not whole."""
    rank = np.arange(n)
    return np.clip(np.minimum(rank + 1, (1 - TRIMMED) * n) - np.maximum(rank, TRIMMED * n), 0.0, 1.0)


def _trimmed(ranked: Array) -> Array:
    """Trimmed mean along the second axis of what is ranked along it."""
    keep = _kept(ranked.shape[1])
    return np.einsum("kn...,n->k...", ranked, keep) / keep.sum()


def _trimmed_without(ranked: Array) -> Array:
    """The same with each of the ranked samples left out in turn: those above it move down by one rank."""
    keep = _kept(ranked.shape[1] - 1).reshape(-1, *[1] * (ranked.ndim - 2))
    below, above = np.zeros_like(ranked), np.zeros_like(ranked)
    below[:, 1:] = (ranked[:, :-1] * keep).cumsum(1)
    above[:, :-1] = (ranked[:, 1:] * keep)[:, ::-1].cumsum(1)[:, ::-1]
    return (below + above) / keep.sum()


def median_score(distance: Array, null: Array) -> Array:
    """1 - median_i d_i / median_i v_i: the score with medians over samples for means, of the distance and of the null's `pseudo_values`.

    Both are averaged over pairs first. As the plain score it is 0 for unrelated models, up to sampling error. It has no interval: the
    delete-one jackknife is not consistent for a median (Miller 1974).

    Args:
        distance, null: per sample, ``(pairs, N, ...)``; one pair is ``distance[p : p + 1]``. N >= 3.

    Returns:
        ``(...)``.
    """
    return score(np.median(distance.mean(0), 0), np.median(pseudo_values(null.mean(0)), 0))


class Worst(NamedTuple):
    """Of the sample with the largest distance: its ``share`` of the total (NaN where that is 0 or not finite) and its ``sample``, its
    place along the axis (-1 there)."""

    share: Array
    sample: NDArray[np.int64]


def worst_share(distance: Array, axis: int = 0) -> Worst:
    """Which share of the total distance its worst sample holds, and which that is. For a family give ``distance.mean(0)``, over pairs.

    Args:
        distance: per sample, none negative, any shape.
        axis: the axis of samples.
    """
    distance = np.moveaxis(np.asarray(distance, dtype=np.float64), axis, 0)
    total = distance.sum(0)
    defined = np.isfinite(total) & (total > 0)
    share = np.where(defined, distance.max(0) / np.where(defined, total, 1.0), np.nan)
    return Worst(share, np.where(defined, distance.argmax(0), -1))


class LeftOut(NamedTuple):
    """What leaving out one model at a time says.

    Attributes:
        score: the family's score without each model, ``(K, ...)``.
        odd: the model whose removal raises the score most, ``(...)``; -1 where the score is undefined.
        rise: the score without it minus the score with all, ``(...)``, never below 0, with its interval.
    """

    score: Array
    odd: NDArray[np.int64]
    rise: Interval


def leave_one_out(distance: Array, null: Array, models: int) -> LeftOut:
    """The family's score without each of its models, and which one is the odd one out.

    The interval of the rise is over noise: *these* models under other noise (a delete-one-sample jackknife). It is simultaneous for all
    K models (Bonferroni), since the odd one is the largest of K. Over models there is none: a maximum has no jackknife.

    Args:
        distance, null: per sample, ``(pairs, N, ...)`` in the order of `pairs_of`; nulls as in `pair_score`. N >= 3.
        models: K >= 3.
    """
    d, u = (np.stack([x.mean(0), *without_each_model(x, models)]) for x in (distance, null))
    scores, left = score(d.mean(1), u.mean(1)), score(*without_each_sample(d, u))
    rises = scores[1:] - scores[0]
    every = jackknife(rises, np.moveaxis(left[1:] - left[0], 1, 0), level=1 - 0.05 / models)
    defined = np.isfinite(rises).all(0)
    odd = np.where(defined, np.where(np.isfinite(rises), rises, -np.inf).argmax(0), -1)
    chosen = np.maximum(odd, 0)[None]  # where there is none, all rises are undefined
    return LeftOut(scores[1:], odd, Interval(*(np.take_along_axis(part, chosen, 0)[0] for part in every)))
