"""What probes found, one noise level, part or path at a time: figures of `plots` on a part of the result, and the numbers there."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.intervals import add_interval, interval_of
from consistency_lab.plots import connectivity as paths
from consistency_lab.plots import curvature as spectra
from consistency_lab.plots import landscapes, probe_frames, probes, reading
from consistency_lab.plots import structure as structures
from consistency_lab.plots.theme import MUTED, SAME, new_figure, themed, time_axis
from consistency_lab.probes.profiles import with_void_marked
from consistency_lab.reports.numbers import with_interval

Drawn = tuple[Figure, str]
OVER_IMAGES = "95 % intervals over images"


def _text(ds: xr.Dataset, name: str) -> str:
    """The one number of that name that a part of a result holds, with its interval."""
    return with_interval(*(np.asarray(part).item() for part in interval_of(ds, name)))


def measures(ds: xr.Dataset) -> list[str]:
    """The definitions of difficulty that a result has, or the error in each unit for one without profiles."""
    if "profile" in ds:
        return reading.names(with_void_marked(ds), "definition")
    return [f"{unit} error" for unit in reading.names(ds, "units")]


def _measure(ds: xr.Dataset, measure: str) -> tuple[xr.Dataset, str, str]:
    """What holds the measure along t, under which name, and its unit."""
    if "profile" in ds:
        one = with_void_marked(ds).sel(definition=measure)
        return one, "profile", str(one["definition_unit"].values)
    return ds.sel(units=measure.removesuffix(" error")), "error_mean", "mean square over pixels"


@themed
def along_t(ds: xr.Dataset, measure: str, t: float) -> Figure:
    """One measure of difficulty along t with its interval, the time that is asked about marked."""
    one, name, unit = _measure(ds, measure)
    value, low, high = interval_of(one, name)
    figure, axes = new_figure(7.6, 3.2)
    ax = axes[0, 0]
    ax.fill_between(ds["t"], low, high, color=SAME, alpha=0.18, lw=0)
    ax.plot(ds["t"], value, color=SAME)
    ax.axvline(t, color=MUTED, lw=1)
    if np.all(low > 0):
        ax.set_yscale("log")
    ax.set_title(f"{measure} of {reading.model_of(ds)}")
    ax.set_ylabel(unit)
    time_axis(ax, ds["t"].values, ds["log_snr"].values)
    return figure


def at_t(ds: xr.Dataset, measure: str, t: float) -> str:
    """The measure at one time with its interval."""
    one, name, unit = _measure(ds, measure)
    text = _text(one.sel(t=t), name)
    return f"{measure} of {reading.model_of(ds)} at t = {t:.2f}: {text} ({unit}; {OVER_IMAGES})."


def structure(ds: xr.Dataset, t: float) -> Figure:
    """The figure of structure, the time that is asked about marked."""
    figure = structures.structure(ds)
    for ax in figure.axes:
        ax.axvline(t, color=MUTED, lw=1)
    return figure


def structure_sentence(ds: xr.Dataset, t: float) -> str:
    """What each model knows of its final image at that time."""
    table = probe_frames.structure(ds)
    rows = table[(table["quantity"] == "fixed") & (table["part"] == "mse") & (table["t"] == t)].to_dict("records")
    known = "; ".join(f"{row['name']} {with_interval(row['value'], row['low'], row['high'])}" for row in rows)
    return f"share of the final images' variance that the x0 estimate explains at t = {t:.2f}: {known} (95 % over samples)."


def line(ds: xr.Dataset, level: float | None) -> Drawn:
    """The loss along a line over all noise levels, or at one of them."""
    path = str(ds.attrs.get("path", "a line in weight space"))
    if level is None:
        bend = with_interval(*interval_of(ds, "curvature", float("nan")))
        said = f"loss along {path}, all noise levels; second derivative at the model {bend}."
        return probes.landscape(ds), said
    here = ds.sel(t=level, drop=True)
    one = ds[["loss"]]
    add_interval(one, "loss", ("position",), interval_of(here, "loss_by_t"))  # without one in an earlier version
    one.attrs["path"] = f"{path}, t = {level:.2g}"
    said = f"loss along {path} at t = {level:.2f}"
    if "curvature_by_t" in here:
        said += f"; second derivative at the model {_text(here, 'curvature_by_t')}"
    return probes.landscape(one), f"{said}."


def plane(ds: xr.Dataset, level: float | None) -> Drawn:
    """The loss on a plane over all noise levels, or beside it at one of them."""
    path, name = str(ds.attrs.get("path", "a plane in weight space")), "mean"
    one, at = ds.drop_vars("loss_by_t", errors="ignore"), "over all noise levels"
    if level is not None:
        one, name, at = ds.sel(t=[level]), f"t = {level:.2g}", f"at t = {level:.2f}"
    table = landscapes.plane_frame(one)
    worst = table[table["name"] == name]["relative"].max()
    return landscapes.plane(one, most=1), f"loss on {path}, {at}: at most {worst:.3g} times that at the model."


def curvature(ds: xr.Dataset, part: str) -> Drawn:
    """The spectrum of all samples, or of those at one noise level."""
    one = ds.sel(part=[part]).assign_coords(part=["all"])
    numbers = spectra.number_frame(one)
    shown = numbers[numbers["quantity"].isin(["top 1", "trace"])].to_dict("records")
    known = "; ".join(
        f"{row['operator'].replace('_', '-')} {row['quantity']} {with_interval(row['value'], row['low'], row['high'])}"
        + ("" if row["converged"] else ", not converged")
        for row in shown
    )
    return spectra.spectrum(one), f"curvature of {reading.model_of(ds)}, samples of {part}: {known} ({OVER_IMAGES})."


def connectivity(ds: xr.Dataset, path: str) -> Drawn:
    """The loss along one path between two models, and its barrier."""
    one = ds.sel(path=[path])
    barrier = _text(one, "barrier")
    return paths.connectivity(one), f"barrier on the path {path}: {barrier} (loss above the chord; {OVER_IMAGES})."
