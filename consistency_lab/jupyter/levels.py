"""What probes found, one noise level, part or path at a time: figures of `plots` on a part of the result, and the numbers there."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.plots import connectivity as paths
from consistency_lab.plots import curvature as spectra
from consistency_lab.plots import landscapes, probe_frames, probes, reading
from consistency_lab.plots import structure as structures
from consistency_lab.plots.theme import MUTED, SAME, new_figure, themed, time_axis
from consistency_lab.probes.profiles import with_void_marked
from consistency_lab.reports.numbers import with_interval

Drawn = tuple[Figure, str]
ENDS = ("", "_low", "_high")
OVER_IMAGES = "95 % intervals over images"


def _text(ds: xr.Dataset, name: str, ends: tuple[str, str, str] = ENDS) -> str:
    """A number of a result, whatever holds it, with its interval."""
    value, low, high = (float(ds[f"{name}{end}"].item()) for end in ends)
    return with_interval(value, low, high)


def measures(ds: xr.Dataset) -> list[str]:
    """The definitions of difficulty that a result has, or the error in each unit for one without profiles."""
    if "profile" in ds:
        return reading.names(with_void_marked(ds), "definition")
    return [f"{unit} error" for unit in reading.names(ds, "units")]


def _measure(ds: xr.Dataset, measure: str) -> tuple[xr.Dataset, str]:
    """``value``, ``low`` and ``high`` along t, and their unit."""
    if "profile" in ds:
        one = with_void_marked(ds).sel(definition=measure)
        names, unit = [f"profile{end}" for end in ENDS], str(one["definition_unit"].values)
    else:
        one, unit = ds.sel(units=measure.removesuffix(" error")), "mean square over pixels"
        names = ["error_mean", "error_low", "error_high"]
    return one[names].rename(dict(zip(names, ("value", "low", "high"), strict=True))), unit


@themed
def along_t(ds: xr.Dataset, measure: str, t: float) -> Figure:
    """One measure of difficulty along t with its interval, the time that is asked about marked."""
    values, unit = _measure(ds, measure)
    figure, axes = new_figure(7.6, 3.2)
    ax = axes[0, 0]
    ax.fill_between(ds["t"], values["low"], values["high"], color=SAME, alpha=0.18, lw=0)
    ax.plot(ds["t"], values["value"], color=SAME)
    ax.axvline(t, color=MUTED, lw=1)
    if bool((values["low"] > 0).all()):
        ax.set_yscale("log")
    ax.set_title(f"{measure} of {reading.model_of(ds)}")
    ax.set_ylabel(unit)
    time_axis(ax, ds["t"].values, ds["log_snr"].values)
    return figure


def at_t(ds: xr.Dataset, measure: str, t: float) -> str:
    """The measure at one time with its interval."""
    values, unit = _measure(ds, measure)
    here = values.sel(t=t)
    text = _text(here, "", ("value", "low", "high"))
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
        value, low, high = (float(ds.attrs.get(f"curvature{end}", float("nan"))) for end in ENDS)
        said = f"loss along {path}, all noise levels; second derivative at the model {with_interval(value, low, high)}."
        return probes.landscape(ds), said
    here = ds.sel(t=level, drop=True)
    nothing = here["loss"] * float("nan")  # results of an earlier version have no interval at single levels
    one = ds[["loss"]].assign({f"loss{end}": here.get(f"loss_by_t{end}", nothing) for end in ENDS})
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
