"""A gate as a result: the interval over samples seen, what each sample adds, and what a reader should hold against it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from consistency_lab.gates.baseline import Baseline
from consistency_lab.gates.samples import SHOWN, Distances, Pictures
from consistency_lab.gates.telling import Criterion, Told
from consistency_lab.intervals import Array, Interval, add_interval, stacked
from consistency_lab.markup import percent
from consistency_lab.similarity.named import sample_name
from consistency_lab.similarity.robust import MOST_HELD, TIMES_FAIR
from consistency_lab.similarity.statistics import COLLAPSED, score
from consistency_lab.similarity.typical import median_score, typical, worst_share


def add_trace(result: xr.Dataset, told: Sequence[Told], criterion: Criterion, samples: Sequence[int]) -> None:
    """Add scores at each look, and the decisions.

    Args:
        result: with the coordinate ``metric``; gets ``samples (look)`` and the variables.
        told: of each metric.
        samples: that each look has seen.
    """
    result.coords["samples"] = ("look", np.asarray(samples, dtype=np.int32))
    for name in ("score", "ceiling", "shortfall"):
        if all(getattr(each, name) is not None for each in told):
            over_metrics = stacked(getattr(each, name) for each in told)
            add_interval(result, name, ("look", "metric"), Interval(*(part.T for part in over_metrics)))
    bounds = np.full(len(told), np.nan) if criterion.bounds is None else np.array(criterion.bounds)
    result["bound"] = ("metric", bounds)
    result["decision"] = ("metric", np.array([each.decision for each in told]))
    result["more"] = ("metric", np.array([each.more for each in told]))


def add_samples(result: xr.Dataset, distances: Sequence[Distances], pictures: Pictures) -> None:
    """Add distances and nulls of samples in the order in which they were seen, scores of typical ones, and the worst with pictures.

    Args:
        result: with the coordinates ``sample`` and ``metric``.
        distances: of each metric.
    """
    dims = ("sample", "metric")
    for name, values in (
        ("distance", [each.own for each in distances]),
        ("null", [each.nulls for each in distances]),
        ("again", [each.again for each in distances if each.again is not None]),
    ):
        if values:
            result[name] = (dims, np.stack([each.reshape(-1) for each in values], -1))
    for typical_score, of in (("trimmed_score", _trimmed), ("median_score", _median)):
        result[typical_score] = ("metric", np.array([of(each) for each in distances]))
    worst = worst_share(result["distance"].values)
    result["worst_share"] = ("metric", worst.share)
    result["worst_sample"] = ("metric", np.where(worst.sample < 0, -1, result["sample"].values[worst.sample]))
    result.coords["worst"], result.coords["side"] = list(pictures.kept), ["reference", "candidate"]
    result["worst_images"] = (("worst", "side", "channel", "row", "column"), np.stack(list(pictures.kept.values())))


def _trimmed(distances: Distances) -> float:
    """The score of the samples that are typical by their distance: of them, and of pairs of them."""
    own = distances.own
    kept = np.isin(np.arange(own.size), typical(own.reshape(-1))).reshape(own.shape)
    both = kept[:, :, None] & kept[:, None, :] & ~np.eye(own.shape[1], dtype=bool)
    return float(score(own[kept].mean(), distances.cross[both].mean())) if both.any() else np.nan


def _median(distances: Distances) -> float:
    return median_score(
        distances.own.reshape(-1), distances.cross[:, ~np.eye(distances.cross.shape[1], dtype=bool)].reshape(-1)
    )


def warnings_of(result: xr.Dataset, lost: Sequence[int], held: Baseline | None) -> list[str]:
    """What to hold against the scores, or to know beside them, a sentence each; of a result with provenance and names.

    Args:
        lost: samples of which the candidate made values that are not finite.
        held: the baseline.
    """
    said = []
    if lost:
        listed = ", ".join(map(str, lost[:5])) + (", ..." if len(lost) > 5 else "")
        said.append(
            f"{result.attrs['candidate']} gave values that are not finite in {len(lost)} of its samples ({listed}): that alone fails it, "
            "and the numbers leave these samples out."
        )
    most = max(MOST_HELD, TIMES_FAIR / result.sizes["sample"])
    for metric in result["metric"].values.tolist():
        one = result.sel(metric=metric)
        if float(one["null"].mean()) < COLLAPSED:
            said.append(f"the images do not depend on the noise ({metric}: null below 1e-8), so there is no score.")
        if (share := float(one["worst_share"])) > most:
            said.append(
                f"sample {sample_name(result, int(one['worst_sample']))} alone holds {percent(share)} of the distance ({metric}): the "
                f"score is {float(one['score'][-1]):.3f}, of typical samples {float(one['trimmed_score']):.3f} (10 % trimmed) and "
                f"{float(one['median_score']):.3f} (median)."
            )
    return said + ([] if held is None else held.differences(result))


def worst_pairs(result: xr.Dataset, metric: str) -> list[tuple[int, str, float]]:
    """The worst samples of a metric, the worst first: number, name, and distance in nulls."""
    one = result.sel(metric=metric)
    distance: Array = one["distance"].values / max(float(one["null"].mean()), COLLAPSED)
    places = np.argsort(-distance, kind="stable")[:SHOWN]
    return [
        (int(result["sample"][i]), sample_name(result, int(result["sample"][i])), float(distance[i])) for i in places
    ]
