"""The final images of the samples on which models agree most and least, so that a reader sees what the ends of a distribution are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from consistency_lab.metrics.distances import Distance
from consistency_lab.similarity.quantities import higher_is_alike
from consistency_lab.similarity.trajectories import Trajectories, to_bytes


def ranked(result: xr.Dataset, metric: str) -> np.ndarray:
    """The places of the samples of a comparison ``(sample,)``, most consistent first: by the mean over pairs at the last time."""
    mean = result["distance"].isel(t=-1).sel(metric=metric).mean("pair").values
    return np.argsort(-mean if higher_is_alike(result, metric) else mean, kind="stable")


def add_extremes(
    result: xr.Dataset, walked: Sequence[Trajectories], distances: Sequence[Distance], count: int = 4
) -> None:
    """Add ``extreme_images`` ``(model, extreme, channel, row, column)``: of every metric the ``count`` samples at either end.

    Args:
        result: a comparison with ``distance`` and the coordinate ``sample``; it gets the variable, and the coordinate ``extreme``: which
            samples these are, each once, in their order.
        walked: the models, of the same samples.
        distances: the metrics.
        count: samples at either end; at most half of all.
    """
    count = min(count, result.sizes["sample"] // 2)
    places: set[int] = set()
    for distance in distances:
        order = ranked(result, distance.name)
        places |= {int(i) for i in (*order[:count], *order[len(order) - count :])}
    chosen = sorted(places)
    result.coords["extreme"] = result["sample"].values[chosen]
    pictures = np.stack([to_bytes(each.estimates[-1, chosen]) for each in walked])
    result["extreme_images"] = (("model", "extreme", "channel", "row", "column"), pictures)
