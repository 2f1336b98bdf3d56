"""Who decides a score? How much a few samples, or one model, contribute to a comparison.

The consistency score is a ratio of means, and one exploded sample can be a quarter of a mean. Scores of typical samples stand beside
it, with the share that the worst sample holds, and the score without each model in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from consistency_lab.intervals import add_interval, stacked
from consistency_lab.metrics.distances import Distance
from consistency_lab.similarity.pairwise import embedded, groups_of, null_of, scored
from consistency_lab.similarity.statistics import score
from consistency_lab.similarity.trajectories import ModelWalks
from consistency_lab.similarity.typical import leave_one_out, median_score, trimmed_interval, typical, worst_share

MOST_HELD = 0.05  # share of the distance that one sample may hold before a reader is warned
SHIFTS = 8  # of the samples, at which distances of other noise are taken for a median
TIMES_FAIR = 5.0  # and at least so many times its fair share 1 / N, where samples are few


def add_robust(result: xr.Dataset, distances: Sequence[Distance]) -> None:
    """Add how much one sample, or one model, contributes to the scores. Nothing is added for fewer than three samples.

    - ``worst_share (t, metric)``: the share of the distance, averaged over pairs, that its worst sample holds, and ``worst_sample``, the
      number of that image (-1 where it is undefined);
    - with three models or more, ``without_score (model, t, metric)``: the family's score without that model; ``odd (t, metric)``: the
      index of the model whose removal raises it most (-1 where undefined), and ``odd_rise`` by how much, with its interval.

    Args:
        result: with ``distance`` and ``null`` ``(pair, t, sample, metric)``.
        distances: the metrics; nothing is said of those that are not scored.
    """
    models = result.sizes["model"]
    if result.sizes["sample"] < 3:
        return
    distance, null = _scored(result, distances)
    worst = worst_share(distance.mean(0))
    result["worst_share"] = (("t", "metric"), worst.share)
    numbers = np.append(result["sample"].values, -1)
    result["worst_sample"] = (("t", "metric"), numbers[worst.sample].astype(np.int32))
    if models > 2:
        left = leave_one_out(distance, null, models)
        result["without_score"] = (("model", "t", "metric"), left.score)
        result["odd"] = (("t", "metric"), left.odd.astype(np.int32))
        add_interval(result, "odd_rise", ("t", "metric"), left.rise)


def add_typical(
    result: xr.Dataset, walks: ModelWalks, distances: Sequence[Distance], labels: np.ndarray | None
) -> None:
    """Add the scores of typical samples at the last time, of final images. Nothing is added for fewer than three samples.

    - ``trimmed_score (pair, metric)`` and ``family_trimmed_score (metric)`` with intervals: the score of the comparison of those samples
      alone that are `typical`, ranked by the pair's distance or by the mean over pairs, distance and null of them alone.
    - ``median_score`` and ``family_median_score``, without: see `typical.median_score`. The distances of other noise are those of the
      samples that lie s = 1, ... from each other, for up to 8 values of s (of the label, where there are labels).

    Args:
        result: with ``distance`` and ``null`` ``(pair, t, sample, metric)``.
        walks: of the models.
        distances: the metrics; those that are not scored have no such score either.
        labels: what each sample was asked for, or None.
    """
    if result.sizes["sample"] < 3:
        return
    models, pairs = result.sizes["model"], len(walks.sides)
    distance, null = (x[:, :, -1] for x in _scored(result, distances))
    trimmed, middle = np.full((pairs + 1, len(distances)), np.nan), np.full((pairs + 1, len(distances)), np.nan)
    for m, metric in enumerate(distances):
        if not metric.scored:
            continue
        images = embedded(metric, [walk.estimates[-1] for walk in walks.every])
        ends = [(images[a], images[b]) for a, b in walks.sides]
        apart = np.stack([_of_other_noise(metric, a, b, labels) for a, b in ends])
        # Every pair by itself, and at last the family.
        for row, chosen in enumerate([*([p] for p in range(pairs)), list(range(pairs))]):
            kept = typical(distance[chosen, :, m].mean(0), labels)
            if len(kept) > 1:
                under = groups_of(None if labels is None else labels[kept])
                own = np.mean([null_of(metric, a[kept], b[kept], under).numpy() for a, b in (ends[p] for p in chosen)])
                trimmed[row, m] = score(distance[chosen][:, kept, m].mean(), own)
            middle[row, m] = median_score(distance[chosen, :, m].mean(0), apart[chosen].mean(0))
    each = [trimmed_interval(trimmed[p], distance[p : p + 1], null[p : p + 1], 2, labels) for p in range(pairs)]
    add_interval(result, "trimmed_score", ("pair", "metric"), stacked(each))
    add_interval(
        result, "family_trimmed_score", ("metric",), trimmed_interval(trimmed[-1], distance, null, models, labels)
    )
    result["median_score"], result["family_median_score"] = (("pair", "metric"), middle[:-1]), ("metric", middle[-1])


def _of_other_noise(metric: Distance, a: Tensor, b: Tensor, labels: np.ndarray | None) -> np.ndarray:
    """Distances of images of other noise, of the same label ``(n,)``."""
    found = []
    for group in groups_of(labels) or [np.arange(len(a))]:
        u, v, n = a[group], b[group], len(group)
        for s in np.unique(np.linspace(1, n - 1, min(SHIFTS, n - 1)).round().astype(int)).tolist():
            found += [metric.between(u, v.roll(s, 0)), metric.between(u.roll(s, 0), v)]
    return torch.cat(found).double().cpu().numpy()


def _scored(result: xr.Dataset, distances: Sequence[Distance]) -> tuple[np.ndarray, ...]:
    """Distances and nulls ``(pair, sample, t, metric)``, NaN where a metric is not scored."""
    both = (
        result[name].transpose("pair", "sample", "t", "metric").values.astype(np.float64)
        for name in ("distance", "null")
    )
    return scored(distances, *both)


def held_by_one(result: xr.Dataset) -> list[str]:
    """A sentence for every metric in which one sample accounts for too much of the distance at the last time."""
    if "worst_share" not in result:
        return []
    last, said = result.isel(t=-1), []
    most = max(MOST_HELD, TIMES_FAIR / result.sizes["sample"])
    for metric in result["metric"].values.tolist():
        one = last.sel(metric=metric)
        if (share := float(one["worst_share"])) > most:
            typical_ones = [
                f"{float(one[f'family_{kind}_score']):.3f} ({words})"
                for kind, words in (("trimmed", "10 % trimmed"), ("median", "median"))
                if np.isfinite(one[f"family_{kind}_score"])
            ]
            of_those = f"; of typical samples it is {' and '.join(typical_ones)}" if typical_ones else ""
            said.append(
                f"sample {int(one['worst_sample'])} alone holds {100 * share:.0f} % of the distance ({metric}), so it decides much of the "
                f"score {float(one['family_score']):.3f}{of_those}."
            )
    return said
