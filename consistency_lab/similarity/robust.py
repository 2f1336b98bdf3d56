"""Who decides a score? How much a few samples, or one model, contribute to a comparison.

The consistency score is a ratio of means, and one exploded sample can be a quarter of a mean. Scores of typical samples stand beside
it, with the share that the worst sample holds, and the score without each model in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from consistency_lab.devices import places
from consistency_lab.intervals import add_interval, stacked
from consistency_lab.metrics.distances import Distance
from consistency_lab.similarity.named import sample_name
from consistency_lab.similarity.pairwise import embedded, places_of
from consistency_lab.similarity.statistics import Blocks, score
from consistency_lab.similarity.trajectories import ModelWalks
from consistency_lab.similarity.typical import leave_one_out, median_score, trimmed_interval, typical, worst_share

MOST_HELD = 0.05  # share of the distance that one sample may hold before a reader is warned
TIMES_FAIR = 5.0  # and at least so many times its fair share 1 / N, where samples are few


def add_robust(result: xr.Dataset, distances: Sequence[Distance], blocks: Blocks = None) -> None:
    """Add how much one sample, or one model, contributes to the scores. Nothing is added for fewer than three samples.

    - ``worst_share (t, metric)``: the share of the distance, averaged over pairs, that its worst sample holds, and ``worst_sample``, the
      number of that image (-1 where it is undefined);
    - with three models or more, ``without_score (model, t, metric)``: the family's score without that model; ``odd (t, metric)``: the
      index of the model whose removal raises it most (-1 where undefined), and ``odd_rise`` by how much, with its interval.

    Args:
        result: with ``distance`` and ``null`` ``(pair, t, sample, metric)``.
        distances: the metrics; nothing is said of those that are not scored.
        blocks: in which block each sample met its null.
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
        left = leave_one_out(distance, null, models, blocks)
        result["without_score"] = (("model", "t", "metric"), left.score)
        result["odd"] = (("t", "metric"), left.odd.astype(np.int32))
        add_interval(result, "odd_rise", ("t", "metric"), left.rise)


def add_typical(
    result: xr.Dataset,
    others: np.ndarray,
    alone: np.ndarray | None,
    distances: Sequence[Distance],
    labels: np.ndarray | None,
    blocks: Blocks = None,
) -> None:
    """Add the scores of typical samples at the last time, of final images. Nothing is added for fewer than three samples.

    - ``trimmed_score (pair, metric)`` and ``family_trimmed_score (metric)`` with intervals: the score of the comparison of those samples
      alone that are `typical`, ranked by the pair's distance or by the mean over pairs, distance and null of them alone.
    - ``median_score`` and ``family_median_score``, without: see `typical.median_score`.

    Args:
        result: with ``distance`` and ``null`` ``(pair, t, sample, metric)``.
        others: single distances of other noise, `Cube.others`, float64, or float32 where samples came in blocks.
        alone: of `typical_alone`; None for the linear form of the trimmed score, where the images are no longer there.
        distances: the metrics; those that are not scored have no such score either.
        labels: what each sample was asked for, or None.
        blocks: in which block each sample met its null.
    """
    if result.sizes["sample"] < 3:
        return
    models, pairs = result.sizes["model"], result.sizes["pair"]
    distance, null = (x[:, :, -1] for x in _scored(result, distances))
    middle = np.full((pairs + 1, len(distances)), np.nan)
    for m, metric in enumerate(distances):
        for row, chosen in enumerate(_chosen(pairs) if metric.scored else []):
            middle[row, m] = median_score(
                distance[chosen, :, m].mean(0), others[chosen, :, m].mean(0, dtype=np.float64)
            )
    each = [
        trimmed_interval(
            None if alone is None else alone[row],
            distance[chosen],
            null[chosen],
            2 if row < pairs else models,
            labels,
            blocks,
        )
        for row, chosen in enumerate(_chosen(pairs))
    ]
    add_interval(result, "trimmed_score", ("pair", "metric"), stacked(each[:-1]))
    add_interval(result, "family_trimmed_score", ("metric",), each[-1])
    result["median_score"], result["family_median_score"] = (("pair", "metric"), middle[:-1]), ("metric", middle[-1])


def typical_alone(
    walks: ModelWalks, distance: np.ndarray, distances: Sequence[Distance], labels: np.ndarray | None
) -> np.ndarray:
    """The scores of typical samples compared alone, of every pair and at last of the family, ``(pair + 1, metric)``.

    Args:
        walks: of the models.
        distance: ``(pair, sample, metric)`` at the last time.
        distances: the metrics; those that are not scored are NaN.
        labels: what each sample was asked for, or None.
    """
    pairs = len(walks.sides)
    trimmed = np.full((pairs + 1, len(distances)), np.nan)
    for m, metric in enumerate(distances):
        if not metric.scored:
            continue
        images = embedded(metric, [walk.estimates[-1] for walk in walks.every])
        for row, chosen in enumerate(_chosen(pairs)):
            kept = typical(distance[chosen, :, m].mean(0), labels)
            if len(kept) > 1:
                under = places_of(None if labels is None else labels[kept], walks.place)
                ends, here = [walks.sides[p] for p in chosen], places(kept, walks.place)
                _, null = metric.pairwise([each[here] for each in images], ends, under)
                trimmed[row, m] = score(distance[chosen][:, kept, m].mean(), null.mean().cpu().numpy())
    return trimmed


def _chosen(pairs: int) -> list[list[int]]:
    """Every pair by itself, and at last the family."""
    return [*([p] for p in range(pairs)), list(range(pairs))]


def _scored(result: xr.Dataset, distances: Sequence[Distance]) -> tuple[np.ndarray, ...]:
    """Distances and nulls ``(pair, sample, t, metric)``, NaN where a metric is not scored."""
    both = tuple(
        result[name].transpose("pair", "sample", "t", "metric").values.astype(np.float64)
        for name in ("distance", "null")
    )
    for values in both:
        values[..., [not distance.scored for distance in distances]] = np.nan
    return both


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
                f"sample {sample_name(result, int(one['worst_sample']))} alone "
                f"holds {100 * share:.0f} % of the distance ({metric}), so it decides much of the "
                f"score {float(one['family_score']):.3f}{of_those}."
            )
    return said
