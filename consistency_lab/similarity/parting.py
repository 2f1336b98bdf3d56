"""Where two models part: the first noise level from which on they differ by more than either differs from its own second run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.intervals import add_interval, mean_interval
from consistency_lab.metrics.distances import Distance


def add_parting(result: xr.Dataset, measured: Mapping[str, Any], distances: Sequence[Distance]) -> None:
    """Add the ceiling along t and where each pair parts from it.

    At each level the distance of a pair is compared, sample by sample, with the larger of its models' mean distances to their own second
    runs (of the samples that were walked twice; the same noise, so differences are paired). The pair has parted at the first level, from
    noise to data, from which on the difference is above 0 at every level, each by its 95 % t interval.

    Args:
        result: of a comparison, with its ``distance (pair, t, sample, metric)``; gets ``ceiling_along (t, metric)``, the mean over models
            with its interval over noise, and ``parting_t`` and ``parting_log_snr (pair, metric)``. They are NaN for pairs that do not part,
            that met at levels of their own (two schedules), or of which no model has a second run.
        measured: ``ceiling_along (model, t, sample, metric)``.
        distances: the metrics.
    """
    distance, ceiling = result["distance"].values, measured["ceiling_along"][1]
    missing = np.isnan(ceiling)
    there, twice = ~missing.all((1, 2, 3)), ~missing.all((0, 1, 3))
    distance, ceiling = distance[:, :, twice].astype(np.float64), ceiling[:, :, twice]
    add_interval(result, "ceiling_along", ("t", "metric"), mean_interval(ceiling[there].mean(0), axis=1))
    shared = np.isclose(result["pair_log_snr"].values, result["log_snr"].values, equal_nan=True).all(1)
    sign = np.array([1.0 if each.better == "lower" else -1.0 for each in distances])
    places = np.full((len(distance), len(distances)), -1)
    for pair, (a, b) in enumerate(zip(result["first"].values, result["second"].values, strict=True)):
        own = [k for k in (a, b) if there[k]]
        if not own or not shared[pair] or distance.shape[2] < 2:
            continue
        means = np.stack([sign * ceiling[k].mean(1) for k in own])  # (runs, t, metric)
        largest = np.take_along_axis(sign * ceiling[own], means.argmax(0)[None, :, None], 0)[0]
        with np.errstate(invalid="ignore"):  # the PSNR of equal images is infinite
            apart = mean_interval(sign * distance[pair] - largest, axis=1).low > 0
        from_here = np.logical_and.accumulate(apart[::-1], 0)[::-1]
        places[pair] = np.where(from_here.any(0), from_here.argmax(0), -1)
    for name, values in (("parting_t", result["t"].values), ("parting_log_snr", result["log_snr"].values)):
        result[name] = (("pair", "metric"), np.where(places >= 0, values[places], np.nan))
