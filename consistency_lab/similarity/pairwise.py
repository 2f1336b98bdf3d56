"""Distances of every pair: pair x t x sample x metric."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from consistency_lab.devices import hand_back
from consistency_lab.intervals import Interval, add_interval
from consistency_lab.metrics.base import RangeWarning
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
    groups, last = groups_of(labels), len(walked[0].estimates) - 1
    few = int(shifts == 1)
    at = []  # [t][metric][pair][value, null(, plain)]
    for number, at_t in enumerate(zip(*(w.estimates for w in walked), strict=True)):
        taken = shifts if number == last else few
        row, single = [], []
        for metric in distances:  # one after the other: embeddings may be many times as large as the images
            images = embedded(metric, at_t)
            ends = [(images[a], images[b]) for a, b in pairs]
            found = [of_other_noise(metric, u, v, groups, taken) for u, v in ends]
            values = [[metric.between(u, v), null] for (u, v), (null, _) in zip(ends, found, strict=True)]
            if groups is not None:
                values = [
                    [*each, of_other_noise(metric, u, v, None, few)[0]]
                    for each, (u, v) in zip(values, ends, strict=True)
                ]
            row.append(values)
            single.append(torch.stack([each for _, each in found]))
            del images, ends
            if few:
                hand_back()
        at.append(row)
    kinds = range(2 if groups is None else 3)
    shape = (len(at), -1, len(pairs), len(distances))
    every = [[[row[m][p][k] for p in range(len(pairs)) for m in range(len(distances))] for row in at] for k in kinds]
    parts = [
        torch.stack([torch.stack(row, -1) for row in part]).reshape(shape).permute(2, 0, 1, 3).numpy() for part in every
    ]
    plain = None if groups is None else parts[2]
    return Cube(parts[0], parts[1], plain, torch.stack(single, -1).numpy() if shifts else None)


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


def of_other_noise(
    distance: Distance, a: torch.Tensor, b: torch.Tensor, groups: Sequence[np.ndarray] | None, shifts: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The null of every sample ``(N,)``, within groups where there are any, and single distances of other noise, of as many ``shifts`` of
    the samples, float64 ``(n,)``. See `pairwise_distances`.
    """
    parts: Sequence[slice | np.ndarray] = [slice(None)] if groups is None else groups  # a slice copies nothing
    if shifts == 1:
        rows = [_of_neighbours(distance, a[part], b[part]) for part in parts]
        null = torch.empty(len(a), dtype=torch.float64)
        for part, (own, _) in zip(parts, rows, strict=True):
            null[part] = own.to(null)
        return null, torch.cat([single for _, single in rows]).double().cpu()
    found = [torch.empty(0)]
    for part in parts if shifts else []:
        u, v = a[part], b[part]
        for s in np.unique(np.linspace(1, len(u) - 1, min(shifts, len(u) - 1)).round().astype(int)).tolist():
            found += [distance.between(u, v.roll(s, 0)), distance.between(u.roll(s, 0), v)]
    return null_of(distance, a, b, groups), torch.cat(found).double().cpu()


def _of_neighbours(distance: Distance, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of samples that follow each other: two distances a sample. A null in closed form is over all samples none the less."""
    if type(distance).null is not Distance.null:
        return distance.null(a, b), torch.cat([distance.between(a[1:], b[:-1]), distance.between(a[:-1], b[1:])])
    there, back = distance.between(a, b.roll(1, 0)), distance.between(a.roll(1, 0), b)
    null = (there + there.roll(-1, 0) + back + back.roll(-1, 0)) / 4
    return null, torch.cat([there[1:], back[1:]])


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
    measured: Mapping[str, Any],
    distances: Sequence[Distance],
    blocks: Blocks = None,
) -> None:
    """Add distance, null, the score of each pair and of the family, with their intervals.

    Args:
        result: gets the variables, and the coordinate ``pair_log_snr (pair, t)``: where each pair met.
        models: how many there are.
        log_snr: that coordinate.
        measured: of `pairs_measured`; where samples have labels, the plain null and its scores, over all labels, stand beside
            (``plain_null``, ``plain_score``, ``family_plain_score``).
        distances: the metrics.
        blocks: in which block each sample met its null.
    """
    result.coords["pair_log_snr"] = (("pair", "t"), log_snr)
    found = {name: measured[name][1] for name in ("distance", "null", "plain_null") if name in measured}
    for name, values in found.items():
        result[name] = (("pair", "t", "sample", "metric"), values.astype(np.float32))
    for kind, own in (("", "null"), ("plain_", "plain_null")):
        if own not in found:
            continue
        distance, null = scored(distances, found["distance"], found[own])
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
    }
