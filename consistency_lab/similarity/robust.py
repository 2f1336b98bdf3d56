"""Whose score is it? What a few samples, or one model, decide of a comparison.

The consistency score is a ratio of means, and one exploded sample can hold a quarter of a mean. So scores of typical samples stand beside
it, with the share that the worst sample holds, and the score without each model in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from consistency_lab.intervals import Interval
from consistency_lab.metrics.distances import Distance
from consistency_lab.similarity.cube import scored
from consistency_lab.similarity.statistics import pairs_of
from consistency_lab.similarity.typical import leave_one_out, median_score, trimmed_score, worst_share

MOST_HELD = 0.05  # share of the distance that one sample may hold before a reader is warned
TIMES_FAIR = 5.0  # and at least so many times its fair share 1 / N, where samples are few


def add_robust(result: xr.Dataset, distances: Sequence[Distance]) -> None:
    """Add what a few samples, or one model, decide of the scores. Nothing is added for fewer than three samples.

    - ``trimmed_score (pair, t, metric)`` and ``family_trimmed_score (t, metric)`` with their intervals, ``median_score`` and
      ``family_median_score``, which have none: see `typical.trimmed_score` and `typical.median_score`;
    - ``worst_share (t, metric)``: the share of the distance, averaged over pairs, that its worst sample holds, and ``worst_sample``, the
      number of that image (-1 where it is undefined);
    - with three models or more, ``without_score (model, t, metric)``: the family's score without that model; ``odd (t, metric)``: the
      index of the model whose removal raises it most (-1 where undefined), and ``odd_rise`` by how much, with its interval.

    Args:
        result: with ``distance`` and ``null`` ``(pair, t, sample, metric)``.
        distances: the metrics; those that are not scored have no robust score either.
    """
    models = result.sizes["model"]
    if result.sizes["sample"] < 3:
        return
    distance, null = (
        x.transpose("pair", "sample", "t", "metric").values.astype(np.float64)
        for x in (result["distance"], result["null"])
    )
    distance, null = scored(distances, distance, null)
    pairs = range(len(pairs_of(models)))
    each = [(distance[p : p + 1], null[p : p + 1]) for p in pairs]
    _add(result, "trimmed_score", ("pair", "t", "metric"), _stacked([trimmed_score(*pair, models=2) for pair in each]))
    _add(result, "family_trimmed_score", ("t", "metric"), trimmed_score(distance, null, models))
    result["median_score"] = (("pair", "t", "metric"), np.stack([median_score(*pair) for pair in each]))
    result["family_median_score"] = (("t", "metric"), median_score(distance, null))
    worst = worst_share(distance.mean(0))
    result["worst_share"] = (("t", "metric"), worst.share)
    numbers = np.append(result["sample"].values, -1)
    result["worst_sample"] = (("t", "metric"), numbers[worst.sample].astype(np.int32))
    if models > 2:
        left = leave_one_out(distance, null, models)
        result["without_score"] = (("model", "t", "metric"), left.score)
        result["odd"] = (("t", "metric"), left.odd.astype(np.int32))
        _add(result, "odd_rise", ("t", "metric"), left.rise)


def _stacked(intervals: Sequence[Interval]) -> Interval:
    return Interval(*(np.stack(parts) for parts in zip(*intervals, strict=True)))


def _add(result: xr.Dataset, name: str, dims: tuple[str, ...], interval: Interval) -> None:
    for end, values in zip(("", "_low", "_high"), interval, strict=True):
        result[f"{name}{end}"] = (dims, values)


def held_by_one(result: xr.Dataset) -> list[str]:
    """A sentence for every metric of which one sample holds too much of the distance at the last time."""
    if "worst_share" not in result:
        return []
    last, said = result.isel(t=-1), []
    most = max(MOST_HELD, TIMES_FAIR / result.sizes["sample"])
    for metric in result["metric"].values.tolist():
        one = last.sel(metric=metric)
        if (share := float(one["worst_share"])) > most:
            trimmed, middle = float(one["family_trimmed_score"]), float(one["family_median_score"])
            said.append(
                f"sample {int(one['worst_sample'])} alone holds {100 * share:.0f} % of the distance ({metric}), so it decides much of the "
                f"score {float(one['family_score']):.3f}; of typical samples it is {trimmed:.3f} (10 % trimmed) and {middle:.3f} (median)."
            )
    return said
