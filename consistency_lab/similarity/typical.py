"""Scores that do not depend on a few samples, the share of the distance due to the worst one, and the family without each model.

All from distances and nulls per sample, ``(pairs, N, ...)``, as in `statistics`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consistency_lab.intervals import Array, Interval, crossed_jackknife, jackknife
from consistency_lab.similarity.statistics import (
    MANY,
    Blocks,
    in_logarithms,
    score,
    without_each_model,
    without_each_sample,
)

TRIMMED = 0.1  # share of the samples that the trimmed score leaves out at either end


def typical(distance: Array, labels: NDArray[np.int32] | None = None) -> NDArray[np.int64]:
    """Which samples are typical ``(n,)``: all but the tenth with the largest and the tenth with the smallest distance, rounded down.

    Args:
        distance: per sample ``(N,)``, averaged over pairs.
        labels: what each sample was asked for; one that would be left alone under its label is left out too, for it has no null.
    """
    cut = int(TRIMMED * len(distance))
    kept = np.sort(np.argsort(distance, kind="stable")[cut : len(distance) - cut])
    if labels is None:
        return kept
    there, counts = np.unique(labels[kept], return_counts=True)
    return kept[np.isin(labels[kept], there[counts > 1])]


def trimmed_interval(
    estimate: Array | None,
    distance: Array,
    null: Array,
    models: int,
    labels: NDArray[np.int32] | None = None,
    blocks: Blocks = None,
) -> Interval:
    """The interval of the score of typical samples, the same share of distance / null as for the linear form of the score.

    That form takes trimmed means of the distance and of the null's `pseudo_values` over the same samples (in part, where 0.1 N is not
    whole), whose jackknife is consistent (Shao & Tu 1995). Where it is undefined, as for few samples that explode, there are no bounds.

    Args:
        estimate: the score of typical samples, ``(...)``; None takes that of the linear form, which needs no null among them alone.
        distance, null: per sample, ``(pairs, N, ...)`` in the order of `pairs_of`; nulls as in `pair_score`. N >= 3.
        models: K >= 2; over models and noise for three or more, over noise alone for two.
        labels: what each sample was asked for, where nulls are within labels (and blocks).
        blocks: in which block each sample met its null.
    """
    linear = linear_trimmed_score(distance, null, models, labels, blocks)
    if estimate is None:
        return linear
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = [(1 - bound) / (1 - linear.estimate) for bound in (linear.low, linear.high)]
    low, high = (np.where(linear.estimate < 1, 1 - (1 - estimate) * share, np.nan) for share in shares)
    return Interval(estimate, low, high)


def linear_trimmed_score(
    distance: Array,
    null: Array,
    models: int,
    labels: NDArray[np.int32] | None = None,
    blocks: Blocks = None,
) -> Interval:
    """The linear form of the trimmed score with its interval: see `trimmed_interval`."""
    d = np.stack([distance.mean(0), *without_each_model(distance, models)])
    nulls = [null.mean(0), *without_each_model(null, models)]
    v = np.stack([pseudo_values(each, cells_of(labels, blocks)) for each in nulls])
    order = d.argsort(1)
    ranked = [np.take_along_axis(x, order, 1) for x in (d, v)]
    estimate = score(*(_trimmed(x[:1])[0] for x in ranked))
    if blocks is not None and blocks.max() + 1 >= MANY:
        rest = [blocks != block for block in range(blocks.max() + 1)]
        left = np.stack([score(*_both_trimmed(d[:, keep], v[:, keep])) for keep in rest], 1)
    else:
        left = score(*(_trimmed_without(x) for x in ranked))
        left = np.take_along_axis(left, order.argsort(1), 1)  # by sample again, and no longer by rank
    return in_logarithms(crossed_jackknife(estimate, [left[1:]]) if models > 2 else jackknife(estimate, left[0]))


def cells_of(labels: NDArray[np.int32] | None, blocks: Blocks) -> NDArray[np.int32] | None:
    """Which samples met each other in a null ``(N,)``: those of one label and one block; None where all did."""
    if labels is None or blocks is None:
        return blocks if labels is None else labels
    return np.unique(np.stack([labels, blocks]), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int32)


def pseudo_values(null: Array, labels: NDArray[np.int32] | None = None) -> Array:
    """What each sample adds to the mean of a null over all i != j: the jackknife's pseudo-values, ``(N, ...)``.

    v_i = mean u + 2 (n - 1) / (n - 2) (u_i - mean u). Their mean is the null's; that of all but one is, exactly, the null without that
    sample, while the other rows u_j still hold its distance to j. For unrelated models the distance d_i scatters around v_i.

    Args:
        null: per sample, ``(N, ...)``, the mean over j != i of both directions. N >= 3.
        labels: what each sample was asked for, where the null is within labels: u's mean and n are then those of the label.
    """
    values = np.empty_like(null)
    for label in [None] if labels is None else np.unique(labels):
        own = slice(None) if label is None else labels == label
        n, mean = len(null[own]), null[own].mean(0)
        values[own] = mean + 2 * (n - 1) / max(n - 2, 1) * (null[own] - mean)  # the two of a pair have one null
    return values


def trimmed_mean(values: Array) -> float:
    """The mean of the typical of some values ``(N,)`` (see `typical`)."""
    return float(values[typical(values)].mean())


def _kept(n: int) -> Array:
    """How much of each of n ranked samples a trimmed mean keeps: 0 at the ends, 1 between, a part where `TRIMMED` n is not whole."""
    rank = np.arange(n)
    return np.clip(np.minimum(rank + 1, (1 - TRIMMED) * n) - np.maximum(rank, TRIMMED * n), 0.0, 1.0)


def _trimmed(ranked: Array) -> Array:
    """Trimmed mean along the second axis of what is ranked along it."""
    keep = _kept(ranked.shape[1])
    return np.einsum("kn...,n->k...", ranked, keep) / keep.sum()


def _both_trimmed(distance: Array, null: Array) -> list[Array]:
    """Trimmed means of both along the second axis, ranked by the distance."""
    order = distance.argsort(1)
    return [_trimmed(np.take_along_axis(x, order, 1)) for x in (distance, null)]


def _trimmed_without(ranked: Array) -> Array:
    """The same with each of the ranked samples left out in turn: those above it move down by one rank."""
    keep = _kept(ranked.shape[1] - 1).reshape(-1, *[1] * (ranked.ndim - 2))
    below, above = np.zeros_like(ranked), np.zeros_like(ranked)
    below[:, 1:] = (ranked[:, :-1] * keep).cumsum(1)
    above[:, :-1] = (ranked[:, 1:] * keep)[:, ::-1].cumsum(1)[:, ::-1]
    return (below + above) / keep.sum()


def median_score(distance: Array, others: Array) -> float:
    """1 - median_i d(A_i, B_i) / median_{i != j} d(A_i, B_j): the score with medians for means.

    It has no interval: the delete-one jackknife is not consistent for a median (Miller 1974).

    Args:
        distance: of the same noise ``(N,)``, averaged over pairs of models.
        others: of other noise, of the same label where there are labels, averaged likewise; any number of them.
    """
    return float(score(np.array(np.median(distance)), np.array(np.median(others))))


class Worst(NamedTuple):
    """Of the sample with the largest distance: its ``share`` of the total (NaN where that is 0 or not finite) and its ``sample``, its
    place along the axis (-1 there)."""

    share: Array
    sample: NDArray[np.int64]


def worst_share(distance: Array, axis: int = 0) -> Worst:
    """The share of the total distance due to its worst sample, and which one it is. For a family give ``distance.mean(0)``, over pairs.

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
    """The result of leaving out one model at a time.

    Attributes:
        score: the family's score without each model, ``(K, ...)``.
        odd: the model whose removal raises the score most, ``(...)``; -1 where the score is undefined.
        rise: the score without it minus the score with all, ``(...)``, never below 0, with its interval.
    """

    score: Array
    odd: NDArray[np.int64]
    rise: Interval


def leave_one_out(distance: Array, null: Array, models: int, blocks: Blocks = None) -> LeftOut:
    """The family's score without each of its models, and which one is the odd one out.

    The interval of the rise is over noise: *these* models under other noise (a delete-one-sample jackknife). It is simultaneous for all
    K models (Bonferroni), since the odd one is the largest of K. Over models there is none: a maximum has no jackknife.

    Args:
        distance, null: per sample, ``(pairs, N, ...)`` in the order of `pairs_of`; nulls as in `pair_score`. N >= 3.
        models: K >= 3.
        blocks: in which block each sample met its null.
    """
    d, u = (np.stack([x.mean(0), *without_each_model(x, models)]) for x in (distance, null))
    scores, left = score(d.mean(1), u.mean(1)), score(*without_each_sample(d, u, blocks))
    rises = scores[1:] - scores[0]
    every = jackknife(rises, np.moveaxis(left[1:] - left[0], 1, 0), level=1 - 0.05 / models)
    defined = np.isfinite(rises).all(0)
    odd = np.where(defined, np.where(np.isfinite(rises), rises, -np.inf).argmax(0), -1)
    chosen = np.maximum(odd, 0)[None]  # where there is none, all rises are undefined
    return LeftOut(scores[1:], odd, Interval(*(np.take_along_axis(part, chosen, 0)[0] for part in every)))
