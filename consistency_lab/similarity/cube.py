"""The cube of distances: pair x t x sample x metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from consistency_lab.metrics.distances import Distance
from consistency_lab.similarity.statistics import Interval, family_score, pair_score, pairs_of
from consistency_lab.similarity.trajectories import Trajectories

FAMILY = "95 %, two-way jackknife, t({dof}) for models: over models like these {count} and over noise"
PAIR = "95 %, delete-one-sample jackknife over noise: this pair, not this family"


def cube(
    walked: Sequence[Trajectories], pairs: Sequence[tuple[int, int]], distances: Sequence[Distance]
) -> tuple[np.ndarray, np.ndarray]:
    """Distance and null of pairs of trajectories, each ``(P, T, N, M)``. Each image is embedded once, whatever the number of pairs."""
    values, nulls = [], []
    for at_t in zip(*(w.estimates for w in walked), strict=True):
        embedded = [[d.embed(x) for x in at_t] for d in distances]
        both = [(d, e[a], e[b]) for a, b in pairs for d, e in zip(distances, embedded, strict=True)]
        values.append(torch.stack([d.between(u, v) for d, u, v in both], -1))
        nulls.append(torch.stack([d.null(u, v) for d, u, v in both], -1))
    shape = (len(values), -1, len(pairs), len(distances))
    distance, null = (torch.stack(x).reshape(shape).permute(2, 0, 1, 3).numpy() for x in (values, nulls))
    return distance, null


def scored(distances: Sequence[Distance], *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """The values ``(..., metric)`` with NaN where a metric is shown and never scored."""
    keep = np.array([d.scored for d in distances])
    return tuple(np.where(keep, x, np.nan) for x in values)


def add_pairs(
    result: xr.Dataset, walked: Sequence[Trajectories], distances: Sequence[Distance], time: str = "t", prefix: str = ""
) -> None:
    """Add distance, null, the score of each pair and of the family, with their intervals.

    Args:
        result: gets the variables, their names beginning with ``prefix``.
        walked: K models.
        distances: the metrics.
        time: name of the time dimension.
        prefix: of the variables' names.
    """
    distance, null = cube(walked, pairs_of(len(walked)), distances)
    dims = ("pair", time, "sample", "metric")
    result[f"{prefix}distance"], result[f"{prefix}null"] = (
        (dims, distance.astype(np.float32)),
        (dims, null.astype(np.float32)),
    )
    distance, null = scored(distances, distance, null)
    alone = pair_score(distance, null, axis=2)
    family = Interval(*(values[0] for values in alone))
    if len(walked) > 2:
        family = family_score(distance.swapaxes(1, 2), null.swapaxes(1, 2), len(walked))
    for name, interval, shape in (("", alone, ("pair", time, "metric")), ("family_", family, (time, "metric"))):
        for end, values in zip(("score", "low", "high"), interval, strict=True):
            key = end if name or end == "score" else f"score_{end}"
            result[f"{prefix}{name}{key}"] = (shape, values)


def interval_names(models: int) -> dict[str, str]:
    """What the two kinds of interval of a comparison of so many models are called."""
    return {"interval": FAMILY.format(dof=models - 1, count=models) if models > 2 else PAIR, "pair_interval": PAIR}


def coordinates(names: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    pairs = pairs_of(len(names))
    return {
        "model": list(names),
        "pair": [f"{names[a]} | {names[b]}" for a, b in pairs],
        "first": ("pair", np.array([a for a, _ in pairs], dtype=np.int32)),
        "second": ("pair", np.array([b for _, b in pairs], dtype=np.int32)),
        "metric": list(metrics),
    }
