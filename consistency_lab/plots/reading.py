"""What every figure and table asks of a result: its names, units, intervals, and why a score is undefined."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import xarray as xr

from consistency_lab.choices import printable
from consistency_lab.errors import UserError, unknown_name
from consistency_lab.intervals import Interval
from consistency_lab.plots.possible import above_zero, drawn_back, possible
from consistency_lab.similarity.quantities import higher_is_alike, is_scored, unit_of
from consistency_lab.similarity.statistics import COLLAPSED
from consistency_lab.store.shapes import whole

REFERENCE_NAMES = {"gaussian": "Gaussian denoiser", "optimal": "optimal denoiser", "mean": "data mean"}


def names(ds: xr.Dataset, dim: str) -> list[str]:
    """The string labels along a dimension, empty when the result does not have it."""
    return [str(name) for name in ds[dim].values] if dim in ds.coords else []


def model_of(ds: xr.Dataset) -> str:
    """The name of the model that a probe looked at."""
    return str(ds.attrs.get("model", "the model"))


def is_between(ds: xr.Dataset) -> bool:
    """Whether a line through weight space leads to a second model (at position 1), and not in a random direction."""
    if "towards" in ds.attrs:
        return bool(ds.attrs["towards"])
    path = str(ds.attrs.get("path", ""))  # versions without the attribute said it in the path alone
    return " to " in path and not path.startswith("random")


def shown(ds: object) -> xr.Dataset:
    """The result as figures, tables and words say it: `whole`, its intervals within what is `possible`. Raises `UserError` as `whole`."""
    return possible(whole(ds))


def need(ds: xr.Dataset, kind: str, *variables: str) -> xr.Dataset:
    """The result made whole (`store.shapes.whole`). Raises `UserError` unless it can be, is of that kind and holds those variables."""
    ds = shown(ds)
    if ds.attrs.get("kind") != kind:
        raise UserError(f"this figure needs a result of kind {kind!r}, not {ds.attrs.get('kind')!r}.")
    missing = [name for name in variables if name not in ds.variables]
    if missing:
        raise UserError(f"the {kind} result lacks {', '.join(missing)}: compute it again with this version.")
    return ds


def check_metric(ds: xr.Dataset, metric: str) -> None:
    """Raise `UserError` with the nearest name unless the comparison has this metric."""
    if metric not in names(ds, "metric"):
        raise unknown_name("metric of this comparison", metric, names(ds, "metric"))


def drawn_back_by(ds: xr.Dataset, metric: str) -> Callable[[Interval], Interval]:
    """What draws an interval of means of a metric back to what they can be: a metric that is scored is a distance."""
    return above_zero if is_scored(ds, metric) else drawn_back


def quantity(ds: xr.Dataset, metric: str) -> str:
    """The name of a metric with its unit and, where it is not a distance, its direction: for axes and tables."""
    unit = unit_of(ds, metric)
    shown = metric.upper() if metric in {"mse", "psnr", "ssim", "lpips"} else metric
    said = "no unit" if unit in {"", "1"} else unit
    return f"{shown} ({said}; higher is more alike)" if higher_is_alike(ds, metric) else f"{shown} ({said})"


def why_undefined(ds: xr.Dataset, metric: str) -> str:
    """The reason for which a consistency score of this metric is not a number."""
    if not is_scored(ds, metric):
        kind = "is a similarity, not a distance" if higher_is_alike(ds, metric) else "has no score"
        return f"{metric.upper()} {kind}: shown, never scored"
    null = float(ds["null"].isel(t=-1).sel(metric=metric).mean())
    if null < COLLAPSED:
        return "collapsed: images from different noise do not differ (null below 1e-8)"
    return "too few models or samples for an estimate"


def warnings(ds: xr.Dataset) -> list[str]:
    """What the comparison itself holds against its scores, a sentence an entry (see `similarity.checks`)."""
    return [printable(str(sentence)) for sentence in json.loads(ds.attrs.get("warnings", "[]"))]


def headline_metric(ds: xr.Dataset) -> str:
    """The metric of a comparison's headline: MSE where it was measured, else the first whose score is defined, else the first."""
    metrics = names(ds, "metric")
    if "mse" in metrics:
        return "mse"
    defined = [m for m in metrics if np.isfinite(float(ds["family_score"].isel(t=-1).sel(metric=m)))]
    return (defined or metrics)[0]
