"""What each figure draws, as tidy frames. Compute, then data, then plot: figures, tables and downloads read these."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from consistency_lab.intervals import (
    Interval,
    as_columns,
    as_value,
    interval_names,
    interval_of,
    mean_interval,
    without_bounds,
)
from consistency_lab.plots.possible import above_zero
from consistency_lab.plots.reading import REFERENCE_NAMES, check_metric, drawn_back_by, model_of, names, need
from consistency_lab.probes.profiles import with_void_marked
from consistency_lab.similarity.named import shared_word
from consistency_lab.similarity.quantities import is_scored
from consistency_lab.similarity.statistics import COLLAPSED, MANY
from consistency_lab.similarity.typical import trimmed_mean

# The estimate and the ends of its interval.
Part = Literal["estimate", "low", "high"]
PARTS: tuple[Part, ...] = ("estimate", "low", "high")


def overview(ds: xr.Dataset, metric: str) -> pd.DataFrame:
    """One row a thing that is compared, at the last time: distance and score, each with its 95 % interval.

    Columns: group ("family", "robust", "plain", "pair", "null", "ceiling", "reference"), name, distance, distance_low, distance_high,
    score, score_low, score_high, interval (which interval the score has). "robust" are scores of typical samples, "plain" is the score
    against other noise under any label, where models were asked for labels.
    """
    ds = need(ds, "comparison", "distance", "null", *interval_names("score", "family_score"))
    check_metric(ds, metric)
    last = ds.isel(t=-1).sel(metric=metric)
    distance, null = (last[name].transpose("pair", "sample").values for name in ("distance", "null"))
    rows = []

    def add(group: str, name: str, distance: Interval, score: Interval, why: str) -> None:
        numbers = {**as_columns("distance", distance), **as_columns("score", score)}
        rows.append({"group": group, "name": name, **numbers, "interval": why})

    interval = str(ds.attrs.get("interval", "not recorded"))
    bounded = drawn_back_by(ds, metric)
    mean = bounded(mean_interval(distance.mean(axis=0)))
    add("family", f"all models, same {shared_word(ds)}", mean, interval_of(last, "family_score"), interval)
    if "family_plain_score" in ds:
        add("plain", "all models, null over all labels", mean, interval_of(last, "family_plain_score"), interval)
    if "family_trimmed_score" in ds and is_scored(ds, metric):
        samples, middle = distance.mean(axis=0), without_bounds(last["family_median_score"])
        for name, center, score, why in (
            (
                "typical samples (10 % trimmed)",
                trimmed_mean(samples),
                interval_of(last, "family_trimmed_score"),
                interval,
            ),
            ("the median sample", np.median(samples), middle, "none: a median has no jackknife"),
        ):
            add("robust", name, without_bounds(center), score, why)
    for i, pair in enumerate(names(ds, "pair")):
        own = interval_of(last.isel(pair=i), "score")
        add("pair", pair, bounded(mean_interval(distance[i])), own, "over noise: this pair, not this family")
    zero = np.nan if not is_scored(ds, metric) or null.mean() < COLLAPSED else 0.0
    apart = bounded(_null_interval(ds, null.mean(axis=0)))
    add("null", f"other {shared_word(ds)} (null)", apart, without_bounds(zero), "0 by definition")
    controls = "over noise: these models, not this family"
    if "ceiling" in ds:
        need(ds, "comparison", *interval_names("ceiling_score"))
        runs = last["ceiling"].dropna("sample", how="all").transpose("model", "sample").values
        there = ~np.isnan(runs).all(axis=1)  # models that have a second run
        what = "same model, other step count" if there.all() else "the first and its own second run"
        own = bounded(mean_interval(runs[there].mean(axis=0)))
        add("ceiling", f"{what} (ceiling)", own, interval_of(last, "ceiling_score"), controls)
    for i, reference in enumerate(names(ds, "reference") if "reference_distance" in ds else []):
        need(ds, "comparison", *interval_names("reference_mean_score"))
        one = last.isel(reference=i)
        own = bounded(mean_interval(one["reference_distance"].transpose("model", "sample").values.mean(axis=0)))
        label = f"models to the {REFERENCE_NAMES.get(reference, reference)}"
        add("reference", label, own, interval_of(one, "reference_mean_score"), controls)
    return pd.DataFrame(rows, columns=["group", "name", *interval_names("distance", "score"), "interval"])


def _null_interval(ds: xr.Dataset, rows: np.ndarray) -> Interval:
    """The mean null ``(..., sample)`` with its interval over noise: every sample is in two rows' sums; many blocks are independent."""
    if "block" not in ds.coords or int(ds["block"].max()) + 1 < MANY:
        return mean_interval(rows, degree=2)
    blocks = ds["block"].values
    means = np.stack([rows[..., blocks == block].mean(-1) for block in np.unique(blocks)], -1)
    center, low, high = mean_interval(means)
    mean = rows.mean(-1)  # of all samples, where blocks are not quite of one size
    return Interval(mean, mean + (low - center), mean + (high - center))


def matrix(ds: xr.Dataset, metric: str, part: Part = "estimate") -> pd.DataFrame:
    """Models x (models + references) at the last time: scores, or means of a metric without; NaN on the diagonal.

    ``part``: the estimates, or the ends of their 95 % intervals over noise.
    """
    ds = need(ds, "comparison", "distance", *interval_names("score"), "first", "second")
    check_metric(ds, metric)
    last = ds.isel(t=-1).sel(metric=metric)
    models, scored = names(ds, "model"), is_scored(ds, metric)

    def values(score: str, distance: str) -> np.ndarray:
        samples = last[distance].transpose(..., "sample").values
        found: np.ndarray = getattr(interval_of(last, score) if scored else mean_interval(samples), part)
        return found

    table = pd.DataFrame(np.nan, index=pd.Index(models, name="model"), columns=models)
    for value, i, j in zip(values("score", "distance"), ds["first"].values, ds["second"].values, strict=True):
        table.iat[int(i), int(j)] = table.iat[int(j), int(i)] = float(value)
    if "reference_score" in ds:
        need(ds, "comparison", *interval_names("reference_score"), "reference_distance")
        for i, reference in enumerate(names(ds, "reference")):
            against = values("reference_score", "reference_distance")[:, i]
            table[REFERENCE_NAMES.get(reference, reference)] = against
    return table


def matches(ds: xr.Dataset, metric: str) -> pd.DataFrame:
    """`matrix` in rows: model, against (a model or a reference), value, and low and high, a 95 % interval over noise."""
    parts = (matrix(ds, metric, part).stack(future_stack=True) for part in PARTS)
    columns = dict(zip(("value", "low", "high"), parts, strict=True))
    table = pd.DataFrame(columns).rename_axis(["model", "against"]).reset_index()
    return table[table["model"] != table["against"]].reset_index(drop=True)


def curves(ds: xr.Dataset, metric: str) -> pd.DataFrame:
    """Along t: columns quantity ("score", "distance"), group, name, t, log_snr, value, low, high.

    Groups are "family", "pair", "null", "ceiling" and "reference". Bounds are 95 % intervals.
    """
    ds = need(ds, "comparison", "distance", "null", *interval_names("score", "family_score"))
    check_metric(ds, metric)
    one = ds.sel(metric=metric)
    t, log_snr = ds["t"].values, ds["log_snr"].values
    parts = []

    def add(what: str, group: str, name: str, found: Interval) -> None:
        columns = {"quantity": what, "group": group, "name": name, "t": t, "log_snr": log_snr}
        parts.append(pd.DataFrame({**columns, **as_value(found)}))

    if is_scored(ds, metric):
        add("score", "family", "all models", interval_of(one, "family_score"))
        for i, pair in enumerate(names(ds, "pair")):
            add("score", "pair", pair, interval_of(one.isel(pair=i), "score"))
    distance = one["distance"].transpose("t", "pair", "sample").values
    bounded = drawn_back_by(ds, metric)
    add("distance", "family", f"same {shared_word(ds)}", bounded(mean_interval(distance.mean(axis=1))))
    null = one["null"].transpose("t", "pair", "sample").values
    add("distance", "null", "other noise (null)", bounded(_null_interval(ds, null.mean(axis=1))))
    if "ceiling_along" in ds:
        add("distance", "ceiling", "ceiling", interval_of(one, "ceiling_along"))
    for i, reference in enumerate(names(ds, "reference") if "reference_distance" in ds else []):
        name = REFERENCE_NAMES.get(reference, reference)
        if is_scored(ds, metric):
            need(ds, "comparison", *interval_names("reference_mean_score"))
            add("score", "reference", name, interval_of(one.isel(reference=i), "reference_mean_score"))
        samples = one["reference_distance"].isel(reference=i).transpose("t", "model", "sample").values
        add("distance", "reference", name, bounded(mean_interval(samples.mean(axis=1))))
    return pd.concat(parts, ignore_index=True)


def parting(ds: xr.Dataset, metric: str) -> pd.DataFrame:
    """Where each pair parts from its models' ceilings: columns pair, t, log_snr; NaN where it does not."""
    ds = need(ds, "comparison", "parting_t", "parting_log_snr")
    check_metric(ds, metric)
    one = ds.sel(metric=metric)
    columns = {"pair": names(ds, "pair"), "t": one["parting_t"].values, "log_snr": one["parting_log_snr"].values}
    return pd.DataFrame(columns)


def distribution(ds: xr.Dataset, metric: str) -> pd.DataFrame:
    """One row a sample (by its name where it has one) at the last time; columns "same: a | b" and "null: a | b" for each pair."""
    ds = need(ds, "comparison", "distance", "null")
    check_metric(ds, metric)
    last = ds.isel(t=-1).sel(metric=metric)
    columns = {}
    for word, variable in (("same", "distance"), ("null", "null")):
        for i, pair in enumerate(names(ds, "pair")):
            columns[f"{word}: {pair}"] = last[variable].isel(pair=i).values
    index = pd.Index(ds["sample_name"].values, dtype=str) if "sample_name" in ds.coords else None
    return pd.DataFrame(columns, index=index).rename_axis("sample")


def difficulty(ds: xr.Dataset) -> pd.DataFrame:
    """Columns quantity ("error", "excess"), name (model or reference), units, t, log_snr, value, low, high."""
    ds = with_void_marked(need(ds, "difficulty", *interval_names("error_mean"), "log_snr"))
    t, log_snr = ds["t"].values, ds["log_snr"].values
    parts = []

    def add(what: str, name: str, unit: str, found: Interval) -> None:
        columns = {"quantity": what, "name": name, "units": unit, "t": t, "log_snr": log_snr}
        parts.append(pd.DataFrame({**columns, **as_value(found)}))

    for unit in names(ds, "units"):
        one = ds.sel(units=unit)
        add("error", model_of(ds), unit, interval_of(one, "error_mean"))
        for i, reference in enumerate(names(ds, "reference")):
            name = REFERENCE_NAMES.get(reference, reference)
            if "reference_error" in ds:
                samples = one["reference_error"].isel(reference=i).transpose("t", "sample").values
                add("error", name, unit, above_zero(mean_interval(samples)))
            if "excess" in ds and bool(one["excess"].isel(reference=i).notnull().any()):
                add("excess", name, unit, interval_of(one.isel(reference=i), "excess"))
    return pd.concat(parts, ignore_index=True)


def landscape(ds: xr.Dataset) -> pd.DataFrame:
    """Columns name ("all t" or "t = 0.3"), position, loss, loss_low, loss_high (NaN for single bins of t)."""
    ds = need(ds, "landscape", *interval_names("loss"))
    position = ds["position"].values
    whole = as_columns("loss", interval_of(ds, "loss"))
    parts = [pd.DataFrame({"name": "all t", "position": position, **whole})]
    if "loss_by_t" in ds:
        for i, t in enumerate(ds["t"].values):
            at_t = as_columns("loss", without_bounds(ds["loss_by_t"].isel(t=i).values))
            parts.append(pd.DataFrame({"name": f"t = {t:.2g}", "position": position, **at_t}))
    return pd.concat(parts, ignore_index=True)


def training(ds: xr.Dataset) -> pd.DataFrame:
    """Columns model, step, loss, held_out: only the steps that a model has; NaN where no held-out loss was recorded."""
    ds = need(ds, "training", "loss")
    frame = ds[["loss"]].to_dataframe().reset_index()[["model", "step", "loss"]]
    frame["held_out"] = ds["held_out"].transpose(*ds["loss"].dims).values.ravel() if "held_out" in ds else np.nan
    return frame.dropna(subset="loss").reset_index(drop=True)


def recipe(ds: xr.Dataset) -> pd.DataFrame:
    """Columns t, density: of the timestep sampler, over t in [0, 1]; uniform is 1."""
    ds = need(ds, "recipe", "density")
    return pd.DataFrame({"t": ds["t"].values, "density": ds["density"].values})
