"""Distances of every pair: pair x t x sample x metric."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from consistency_lab.devices import hand_back, places
from consistency_lab.intervals import Interval, add_interval
from consistency_lab.metrics.base import Groups, RangeWarning, all_or, checked_together, chosen_shifts
from consistency_lab.metrics.distances import Distance
from consistency_lab.similarity.quantities import metric_coordinates
from consistency_lab.similarity.statistics import MANY, Blocks, family_score, pair_score, pairs_of
from consistency_lab.similarity.trajectories import ModelWalks, Trajectories

FAMILY = "95 %, two-way jackknife, t({dof}) for models: over models like these {count} and over noise"
PAIR = "95 %, delete-one-sample jackknife over noise: this pair, not this family"
SHIFTS = 8  # of the samples, at which distances of other noise are taken for a median


class Cube(NamedTuple):
    """Distances of pairs of trajectories, ``(P, T, N, M)``.

    Attributes:
        distance: of sample i to sample i.
        null: mean distance of sample i to the samples j != i, under the same label where there are labels.
        plain: the null over all other samples whatever their labels; None where there are no labels, since the null is that already.
        others: single distances of images of other noise and the same label at the last time, ``(P, n, M)``, where they were asked for.
    """

    distance: np.ndarray
    null: np.ndarray
    plain: np.ndarray | None = None
    others: np.ndarray | None = None


def pairwise_distances(
    walked: Sequence[Trajectories],
    pairs: Sequence[tuple[int, int]],
    distances: Sequence[Distance],
    labels: np.ndarray | None = None,
    shifts: int = 0,
) -> Cube:
    """Distance and null of pairs of trajectories. Each image is embedded once, whatever the number of pairs.

    Args:
        walked: their estimates.
        pairs: indices of two of them.
        distances: the metrics.
        labels: the label of each sample ``(N,)``, two samples or more per label; None without labels.
        shifts: of the samples, at which single distances of other noise are taken for a median; 0: none. 1 is for few samples of large
            images, one block out of many: nulls without a closed form are then of neighbours alone, too.
    """
    groups, last = places_of(labels, walked[0].estimates.device), len(walked[0].estimates) - 1
    few = 1 if shifts == 1 else None
    values, nulls, plain, others = [], [], [], []
    for number, at_t in enumerate(zip(*(w.estimates for w in walked), strict=True)):
        for metric in distances:  # one after the other: embeddings may be many times as large as the images
            images = embedded(metric, at_t)
            own, null = metric.pairwise(images, pairs, groups, few)
            values.append(own)
            nulls.append(null)
            if groups is not None:
                plain.append(metric.pairwise(images, pairs, None, few)[1])
            if shifts and number == last:
                others.append(of_other_noise(metric, images, pairs, groups, shifts))
            del images
            if few:
                hand_back()
    shape = (-1, len(distances), *values[0].shape)

    def cube(rows: Sequence[torch.Tensor]) -> np.ndarray:
        found: np.ndarray = torch.stack(list(rows)).reshape(shape).permute(2, 0, 3, 1).cpu().numpy()
        return found

    single = torch.stack(others, -1).cpu().numpy() if others else None
    return Cube(cube(values), cube(nulls), cube(plain) if plain else None, single)


def embedded(distance: Distance, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The embeddings of several models' images, or of estimates of them."""
    with warnings.catch_warnings(), checked_together():
        # Estimates on the way, and residuals, may lie anywhere; the comparison speaks of the final images' range itself.
        warnings.simplefilter("ignore", RangeWarning)
        return [distance.embed(each) for each in images]


def groups_of(labels: np.ndarray | None) -> list[np.ndarray] | None:
    """The places of the samples of each label; None where there are no labels."""
    return None if labels is None else [np.flatnonzero(labels == label) for label in np.unique(labels)]


def places_of(labels: np.ndarray | None, device: torch.device) -> list[torch.Tensor] | None:
    """`groups_of` as indices on a device."""
    groups = groups_of(labels)
    return None if groups is None else [places(group, device) for group in groups]


def of_other_noise(
    metric: Distance, images: Sequence[torch.Tensor], pairs: Sequence[tuple[int, int]], groups: Groups, shifts: int
) -> torch.Tensor:
    """Single distances of embedded images of other noise, of as many ``shifts`` of the samples, within groups where there are any:
    ``(P, n)`` float64.
    """
    both, found = [*pairs, *((b, a) for a, b in pairs)], []
    for group in all_or(groups):
        parts = [each[group] for each in images]
        for values in metric.at_shifts(parts, both, chosen_shifts(len(parts[0]) - 1, shifts)):
            found += values.split(len(pairs))
    return torch.cat(found, 1)


def scored(distances: Sequence[Distance], *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """The values ``(..., metric)`` with NaN where a metric is shown but never scored."""
    keep = np.array([d.scored for d in distances])
    return tuple(np.where(keep, x, np.nan) for x in values)


def pairs_measured(
    walks: ModelWalks, distances: Sequence[Distance], labels: np.ndarray | None = None, shifts: int = 0
) -> dict[str, Any]:
    """Of each sample ``distance`` and ``null (pair, t, sample, metric)``, with labels ``plain_null``, with shifts ``other_noise``: see
    `pairwise_distances`.
    """
    found = pairwise_distances(walks.every, walks.sides, distances, labels, shifts)
    dims = ("pair", "t", "sample", "metric")
    values: dict[str, Any] = {"distance": (dims, found.distance), "null": (dims, found.null)}
    if found.plain is not None:
        values["plain_null"] = (dims, found.plain)
    if found.others is not None:
        values["other_noise"] = (("pair", "other", "metric"), found.others)
    return values


def add_pairs(
    result: xr.Dataset,
    models: int,
    log_snr: np.ndarray,
    measured: dict[str, Any],
    distances: Sequence[Distance],
    blocks: Blocks = None,
) -> None:
    """Add distance, null, the score of each pair and of the family, with their intervals.

    Args:
        result: gets the variables, and the coordinate ``pair_log_snr (pair, t)``: where each pair met.
        models: how many there are.
        log_snr: that coordinate.
        measured: of `pairs_measured`, out of which distances and nulls are taken, the largest of all numbers; where samples have labels,
            the plain null and its scores, over all labels, stand beside (``plain_null``, ``plain_score``, ``family_plain_score``).
        distances: the metrics.
        blocks: in which block each sample met its null.
    """
    result.coords["pair_log_snr"] = (("pair", "t"), log_snr)
    found = {name: measured.pop(name)[1] for name in ("distance", "null", "plain_null") if name in measured}
    unscored = [not distance.scored for distance in distances]
    for name, values in found.items():
        result[name] = (("pair", "t", "sample", "metric"), values.astype(np.float32))
        values[..., unscored] = np.nan
    for kind, own in (("", "null"), ("plain_", "plain_null")):
        if own not in found:
            continue
        distance, null = found["distance"], found[own]
        alone = pair_score(distance, null, axis=2, blocks=blocks)
        family = Interval(*(values[0] for values in alone))
        if models > 2:
            family = family_score(distance.swapaxes(1, 2), null.swapaxes(1, 2), models, blocks)
        add_interval(result, f"{kind}score", ("pair", "t", "metric"), alone)
        add_interval(result, f"family_{kind}score", ("t", "metric"), family)


def kinds_of_interval(models: int, blocks: int = 1) -> dict[str, str]:
    """What the two kinds of interval of a comparison of so many models, and blocks of samples, are called."""
    pair = PAIR if blocks < MANY else PAIR.replace("delete-one-sample", f"delete-a-block-of-samples (1 of {blocks})")
    return {"interval": FAMILY.format(dof=models - 1, count=models) if models > 2 else pair, "pair_interval": pair}


def coordinates(names: Sequence[str], distances: Sequence[Distance]) -> dict[str, Any]:
    """The models, their pairs, and the metrics with what they are."""
    pairs = pairs_of(len(names))
    return {
        "model": list(names),
        "pair": [f"{names[a]} | {names[b]}" for a, b in pairs],
        "first": ("pair", np.array([a for a, _ in pairs], dtype=np.int32)),
        "second": ("pair", np.array([b for _, b in pairs], dtype=np.int32)),
        **metric_coordinates(distances),
        "shifts": ("metric", np.array([d.shifts for d in distances], dtype=np.int32)),
    }
