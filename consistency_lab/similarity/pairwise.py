"""Distances of every pair: pair x t x sample x metric."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from consistency_lab.intervals import Interval, add_interval
from consistency_lab.metrics.base import RangeWarning
from consistency_lab.metrics.distances import Distance
from consistency_lab.similarity.quantities import metric_coordinates
from consistency_lab.similarity.statistics import family_score, pair_score, pairs_of
from consistency_lab.similarity.trajectories import ModelWalks, Trajectories

FAMILY = "95 %, two-way jackknife, t({dof}) for models: over models like these {count} and over noise"
PAIR = "95 %, delete-one-sample jackknife over noise: this pair, not this family"


class Cube(NamedTuple):
    """Distances of pairs of trajectories, each ``(P, T, N, M)``.

    Attributes:
        distance: of sample i to sample i.
        null: mean distance of sample i to the samples j != i, under the same label where there are labels.
        plain: the null over all other samples whatever their labels; None where there are no labels, since the null is that already.
    """

    distance: np.ndarray
    null: np.ndarray
    plain: np.ndarray | None = None


def pairwise_distances(
    walked: Sequence[Trajectories],
    pairs: Sequence[tuple[int, int]],
    distances: Sequence[Distance],
    labels: np.ndarray | None = None,
) -> Cube:
    """Distance and null of pairs of trajectories. Each image is embedded once, whatever the number of pairs.

    Args:
        walked: their estimates.
        pairs: indices of two of them.
        distances: the metrics.
        labels: the label of each sample ``(N,)``, two samples or more per label; None without labels.
    """
    values, nulls, plain = [], [], []
    groups = groups_of(labels)
    for at_t in zip(*(w.estimates for w in walked), strict=True):
        for distance in distances:
            images = embedded(distance, at_t)
            own, null = distance.pairwise(images, pairs, groups)
            values.append(own)
            nulls.append(null)
            if groups is not None:
                plain.append(distance.pairwise(images, pairs)[1])
    shape = (-1, len(distances), *values[0].shape)
    return Cube(*(torch.stack(x).reshape(shape).permute(2, 0, 3, 1).numpy() for x in (values, nulls, plain) if x))


def embedded(distance: Distance, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The embeddings of several models' images, or of estimates of them."""
    with warnings.catch_warnings():
        # Estimates on the way, and residuals, may lie anywhere; the comparison speaks of the final images' range itself.
        warnings.simplefilter("ignore", RangeWarning)
        return [distance.embed(each) for each in images]


def groups_of(labels: np.ndarray | None) -> list[np.ndarray] | None:
    """The places of the samples of each label; None where there are no labels."""
    return None if labels is None else [np.flatnonzero(labels == label) for label in np.unique(labels)]


def null_of(distance: Distance, a: torch.Tensor, b: torch.Tensor, groups: Sequence[np.ndarray] | None) -> torch.Tensor:
    """The null of every sample ``(N,)``, within groups of samples where there are groups."""
    if groups is None:
        return distance.null(a, b)
    out = torch.empty(len(a), dtype=torch.float64)
    for group in groups:
        out[group] = distance.null(a[group], b[group]).to(out)
    return out


def scored(distances: Sequence[Distance], *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """The values ``(..., metric)`` with NaN where a metric is shown but never scored."""
    keep = np.array([d.scored for d in distances])
    return tuple(np.where(keep, x, np.nan) for x in values)


def add_pairs(
    result: xr.Dataset,
    walks: ModelWalks,
    distances: Sequence[Distance],
    labels: np.ndarray | None = None,
) -> None:
    """Add distance, null, the score of each pair and of the family, with their intervals.

    Args:
        result: gets the variables, and the coordinate ``pair_log_snr (pair, t)``: where each pair met.
        walks: of K models.
        distances: the metrics.
        labels: the label of each sample ``(N,)``; the plain null and its scores, over all labels, then stand beside
            (``plain_null``, ``plain_score``, ``family_plain_score``).
    """
    models = len(walks.own)
    found = pairwise_distances(walks.every, walks.sides, distances, labels)
    dims = ("pair", "t", "sample", "metric")
    result.coords["pair_log_snr"] = (("pair", "t"), walks.log_snr.numpy())
    for name, values in (("distance", found.distance), ("null", found.null), ("plain_null", found.plain)):
        if values is not None:
            result[name] = (dims, values.astype(np.float32))
    for kind, null in (("", found.null), ("plain_", found.plain)):
        if null is None:
            continue
        distance, null = scored(distances, found.distance, null)
        alone = pair_score(distance, null, axis=2)
        family = Interval(*(values[0] for values in alone))
        if models > 2:
            family = family_score(distance.swapaxes(1, 2), null.swapaxes(1, 2), models)
        add_interval(result, f"{kind}score", ("pair", "t", "metric"), alone)
        add_interval(result, f"family_{kind}score", ("t", "metric"), family)


def kinds_of_interval(models: int) -> dict[str, str]:
    """What the two kinds of interval of a comparison of so many models are called."""
    return {"interval": FAMILY.format(dof=models - 1, count=models) if models > 2 else PAIR, "pair_interval": PAIR}


def coordinates(names: Sequence[str], distances: Sequence[Distance]) -> dict[str, Any]:
    """The models, their pairs, and the metrics with what they are."""
    pairs = pairs_of(len(names))
    return {
        "model": list(names),
        "pair": [f"{names[a]} | {names[b]}" for a, b in pairs],
        "first": ("pair", np.array([a for a, _ in pairs], dtype=np.int32)),
        "second": ("pair", np.array([b for _, b in pairs], dtype=np.int32)),
        **metric_coordinates(distances),
    }
