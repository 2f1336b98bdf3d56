"""What each figure draws, as tidy frames. Compute, then data, then plot: figures, tables and downloads read these."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from consistency_lab.intervals import mean_interval
from consistency_lab.plots.reading import REFERENCE_NAMES, check_metric, model_of, names, need
from consistency_lab.probes.profiles import with_void_marked
from consistency_lab.similarity.quantities import is_scored
from consistency_lab.similarity.statistics import COLLAPSED
from consistency_lab.similarity.typical import trimmed_mean

# A value and the ends of its 95 % interval.
Bounds = tuple[float, float, float]


def overview(ds: xr.Dataset, metric: str) -> pd.DataFrame:
    """One row a thing that is compared, at the last time: distance and score, each with its 95 % interval.

    Columns: group ("family", "robust", "plain", "pair", "null", "ceiling", "reference"), name, distance, distance_low, distance_high,
    score, score_low, score_high, interval (which interval the score has). "robust" are scores of typical samples, "plain" is the score
    against other noise under any label, where models were asked for labels.
    """
    family_names = ("family_score", "family_low", "family_high")
    ds = need(ds, "comparison", "distance", "null", "score", "score_low", "score_high", *family_names)
    check_metric(ds, metric)
    last = ds.isel(t=-1).sel(metric=metric)
    distance, null = (last[name].transpose("pair", "sample").values for name in ("distance", "null"))
    rows = []

    def add(group: str, name: str, samples: np.ndarray, score: Bounds, why: str, degree: int = 1) -> None:
        rows.append([group, name, *map(float, mean_interval(samples, degree=degree)), *map(float, score), why])

    family = (float(last["family_score"]), float(last["family_low"]), float(last["family_high"]))
    interval = str(ds.attrs.get("interval", "not recorded"))
    add("family", "all models, same noise", distance.mean(axis=0), family, interval)
    if "family_plain_score" in ds:
        add(
            "plain",
            "all models, null over all labels",
            distance.mean(axis=0),
            _bounds(last, "family_plain_score"),
            interval,
        )
    if "family_trimmed_score" in ds and is_scored(ds, metric):
        samples, nothing = distance.mean(axis=0), (np.nan, np.nan)
        middle = (float(last["family_median_score"]), *nothing)
        for name, center, bounds, why in (
            ("typical samples (10 % trimmed)", trimmed_mean(samples), _bounds(last, "family_trimmed_score"), interval),
            ("the median sample", np.median(samples), middle, "none: a median has no jackknife"),
        ):
            rows.append(["robust", name, float(center), *nothing, *bounds, why])
    for i, pair in enumerate(names(ds, "pair")):
        bounds = (float(last["score"][i]), float(last["score_low"][i]), float(last["score_high"][i]))
        add("pair", pair, distance[i], bounds, "over noise: this pair, not this family")
    zero = np.nan if not is_scored(ds, metric) or null.mean() < COLLAPSED else 0.0
    add("null", "other noise (null)", null.mean(axis=0), (zero, np.nan, np.nan), "0 by definition", degree=2)
    controls = "over noise: these models, not this family"
    if "ceiling" in ds:
        need(ds, "comparison", *score_parts("ceiling_score"))
        samples = last["ceiling"].transpose("model", "sample").values.mean(axis=0)
        bounds = _bounds(last, "ceiling_score")
        add("ceiling", "same model, other step count (ceiling)", samples, bounds, controls)
    for i, reference in enumerate(names(ds, "reference") if "reference_distance" in ds else []):
        need(ds, "comparison", *score_parts("reference_mean_score"))
        one = last.isel(reference=i)
        samples = one["reference_distance"].transpose("model", "sample").values.mean(axis=0)
        label = f"models to the {REFERENCE_NAMES.get(reference, reference)}"
        add("reference", label, samples, _bounds(one, "reference_mean_score"), controls)
    values = [f"{value}{end}" for value in ("distance", "score") for end in ("", "_low", "_high")]
    columns = ["group", "name", *values, "interval"]
    return pd.DataFrame(rows, columns=columns)


def score_parts(name: str) -> tuple[str, str, str]:
    """The variables of a score and of the ends of its interval."""
    return name, f"{name}_low", f"{name}_high"


def _bounds(ds: xr.Dataset, name: str) -> Bounds:
    value, low, high = (float(ds[part]) for part in score_parts(name))
    return value, low, high


def matrix(ds: xr.Dataset, metric: str, end: str = "") -> pd.DataFrame:
    """Models x (models + references) at the last time: scores, or means of a metric without; NaN on the diagonal.

    ``end`` is "" for the values, "_low" or "_high" for the ends of their 95 % intervals over noise.
    """
    ds = need(ds, "comparison", "distance", *score_parts("score"), "first", "second")
    check_metric(ds, metric)
    last = ds.isel(t=-1).sel(metric=metric)
    models, scored, part = names(ds, "model"), is_scored(ds, metric), ("", "_low", "_high").index(end)

    def values(score: str, distance: str) -> np.ndarray:
        return (
            last[score + end].values if scored else mean_interval(last[distance].transpose(..., "sample").values)[part]
        )

    table = pd.DataFrame(np.nan, index=pd.Index(models, name="model"), columns=models)
    for value, i, j in zip(values("score", "distance"), ds["first"].values, ds["second"].values, strict=True):
        table.iat[int(i), int(j)] = table.iat[int(j), int(i)] = float(value)
    if "reference_score" in ds:
        need(ds, "comparison", *score_parts("reference_score"), "reference_distance")
        for i, reference in enumerate(names(ds, "reference")):
            against = values("reference_score", "reference_distance")[:, i]
            table[REFERENCE_NAMES.get(reference, reference)] = against
    return table


def matches(ds: xr.Dataset, metric: str) -> pd.DataFrame:
    """`matrix` in rows: model, against (a model or a reference), value, and low and high, a 95 % interval over noise."""
    columns = {
        name: matrix(ds, metric, end).stack(future_stack=True)
        for name, end in (("value", ""), ("low", "_low"), ("high", "_high"))
    }
    table = pd.DataFrame(columns).rename_axis(["model", "against"]).reset_index()
    return table[table["model"] != table["against"]].reset_index(drop=True)


def curves(ds: xr.Dataset, metric: str) -> pd.DataFrame:
    """Along t: columns quantity ("score", "distance"), group, name, t, log_snr, value, low, high.

    Groups are "family", "pair", "null" and "reference". Bounds are 95 % intervals.
    """
    ds = need(ds, "comparison", "distance", "null", "score", "family_score", "family_low", "family_high")
    check_metric(ds, metric)
    one = ds.sel(metric=metric)
    t, log_snr = ds["t"].values, ds["log_snr"].values
    parts = []

    def add(what: str, group: str, name: str, value: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        columns = {"quantity": what, "group": group, "name": name, "t": t, "log_snr": log_snr}
        parts.append(pd.DataFrame({**columns, "value": value, "low": low, "high": high}))

    if is_scored(ds, metric):
        add("score", "family", "all models", *(one[f"family_{part}"].values for part in ("score", "low", "high")))
        for i, pair in enumerate(names(ds, "pair")):
            add("score", "pair", pair, *(one[part].values[i] for part in ("score", "score_low", "score_high")))
    distance = one["distance"].transpose("t", "pair", "sample").values
    add("distance", "family", "same noise", *mean_interval(distance.mean(axis=1)))
    null = one["null"].transpose("t", "pair", "sample").values
    add("distance", "null", "other noise (null)", *mean_interval(null.mean(axis=1), degree=2))
    for i, reference in enumerate(names(ds, "reference") if "reference_distance" in ds else []):
        name = REFERENCE_NAMES.get(reference, reference)
        if is_scored(ds, metric):
            need(ds, "comparison", *score_parts("reference_mean_score"))
            parts_of = (one[part].isel(reference=i).values for part in score_parts("reference_mean_score"))
            add("score", "reference", name, *parts_of)
        samples = one["reference_distance"].isel(reference=i).transpose("t", "model", "sample").values
        add("distance", "reference", name, *mean_interval(samples.mean(axis=1)))
    return pd.concat(parts, ignore_index=True)


def distribution(ds: xr.Dataset, metric: str) -> pd.DataFrame:
    """One row a sample at the last time; columns "same: a | b" and "null: a | b" for each pair."""
    ds = need(ds, "comparison", "distance", "null")
    check_metric(ds, metric)
    last = ds.isel(t=-1).sel(metric=metric)
    columns = {}
    for word, variable in (("same", "distance"), ("null", "null")):
        for i, pair in enumerate(names(ds, "pair")):
            columns[f"{word}: {pair}"] = last[variable].isel(pair=i).values
    return pd.DataFrame(columns).rename_axis("sample")


def difficulty(ds: xr.Dataset) -> pd.DataFrame:
    """Columns quantity ("error", "excess"), name (model or reference), units, t, log_snr, value, low, high."""
    ds = with_void_marked(need(ds, "difficulty", "error_mean", "error_low", "error_high", "log_snr"))
    t, log_snr = ds["t"].values, ds["log_snr"].values
    parts = []

    def add(what: str, name: str, unit: str, value: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        columns = {"quantity": what, "name": name, "units": unit, "t": t, "log_snr": log_snr}
        parts.append(pd.DataFrame({**columns, "value": value, "low": low, "high": high}))

    for unit in names(ds, "units"):
        one = ds.sel(units=unit)
        add(
            "error",
            model_of(ds),
            unit,
            *(one[f"error_{part}"].values for part in ("mean", "low", "high")),
        )
        for i, reference in enumerate(names(ds, "reference")):
            name = REFERENCE_NAMES.get(reference, reference)
            if "reference_error" in ds:
                samples = one["reference_error"].isel(reference=i).transpose("t", "sample").values
                add("error", name, unit, *mean_interval(samples))
            if "excess" in ds and bool(one["excess"].isel(reference=i).notnull().any()):
                add("excess", name, unit, *(one[part].values[i] for part in ("excess", "excess_low", "excess_high")))
    return pd.concat(parts, ignore_index=True)


def landscape(ds: xr.Dataset) -> pd.DataFrame:
    """Columns name ("all t" or "t = 0.3"), position, loss, low, high (NaN for single bins of t)."""
    ds = need(ds, "landscape", "loss", "loss_low", "loss_high")
    position = ds["position"].values
    parts = [pd.DataFrame({"name": "all t", "position": position, "loss": ds["loss"].values})]
    parts[0] = parts[0].assign(low=ds["loss_low"].values, high=ds["loss_high"].values)
    if "loss_by_t" in ds:
        for i, t in enumerate(ds["t"].values):
            values = ds["loss_by_t"].isel(t=i).values
            parts.append(
                pd.DataFrame(
                    {"name": f"t = {t:.2g}", "position": position, "loss": values, "low": np.nan, "high": np.nan}
                )
            )
    return pd.concat(parts, ignore_index=True)


def training(ds: xr.Dataset) -> pd.DataFrame:
    """Columns model, step, loss: only the steps that a model has."""
    ds = need(ds, "training", "loss")
    frame = ds["loss"].to_dataframe("loss").reset_index()[["model", "step", "loss"]]
    return frame.dropna(subset="loss").reset_index(drop=True)


def recipe(ds: xr.Dataset) -> pd.DataFrame:
    """Columns t, density: of the timestep sampler, over t in [0, 1]; uniform is 1."""
    ds = need(ds, "recipe", "density")
    return pd.DataFrame({"t": ds["t"].values, "density": ds["density"].values})
