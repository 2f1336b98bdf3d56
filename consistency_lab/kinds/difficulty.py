"""How hard each timestep is for one model, by every definition of hard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.intervals import interval_names, interval_of
from consistency_lab.kinds.base import Drawing, Kind, Part, Section, Table
from consistency_lab.kinds.numbers import OVER_IMAGES, interval_text, records, with_interval
from consistency_lab.kinds.views import Control, View
from consistency_lab.plots import definitions, frames, probe_frames, probes, reading
from consistency_lab.plots.theme import MUTED, SAME, new_figure, themed, time_axis
from consistency_lab.probes.profiles import difficulty_correlations, difficulty_table, with_void_marked


class Difficulty(Kind):
    place = 20

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        model, units = reading.model_of(ds), reading.names(ds, "units")
        yield Drawing(
            "curves",
            probes.difficulty(ds),
            frames.difficulty(ds),
            f"Denoising error of {model} along t in {', '.join(units)} units beside closed-form references.",
            "Error per timestep, mean over pixels and samples with its 95 % interval. Which times are hard depends on the "
            "units: an error in eps units is divided by alpha²/sigma² to be one in x0 units. Below: the error minus that "
            "of a reference.",
        )
        if "profile" not in ds:
            return
        ds = with_void_marked(ds)
        yield Drawing(
            "definitions",
            definitions.definitions(ds),
            probe_frames.definitions(ds),
            f"Difficulty of each timestep of {model} by {ds.sizes['definition']} definitions.",
            "Every definition on its own axis with its 95 % interval over images; the dot is the hardest time. Excess below zero means "
            "better than the closed-form denoiser; that over the optimal denoiser is of training images, which it holds.",
        )
        yield Drawing(
            "agreement",
            definitions.agreement(ds),
            difficulty_correlations(ds),
            "Rank correlations between definitions of difficulty.",
            "1: the two order the times alike; −1: what one calls hard the other calls easy. Intervals are over images.",
        )

    def numbers(self, ds: xr.Dataset) -> dict[str, Any]:
        found = {"rows": records(frames.difficulty(ds))}
        if "profile" in ds:
            found["definitions"] = records(difficulty_table(ds))
            found["rank_correlations"] = records(difficulty_correlations(ds))
        return found

    def section(self, ds: xr.Dataset) -> Section:
        curves, *more = self.figures(ds)
        parts: list[Part] = [curves]
        if hardest := _hardest(ds):
            parts.append(Table(("largest error", "at", "squared error, mean [95 %]"), hardest))
        if more:
            head = (
                "definition",
                "hardest t (those not told from it)",
                "share at t < 0.5 [95 %]",
                "if flat",
                "what it is",
            )
            parts += [*more, Table(head, _definitions(ds))]
        return Section(f"How hard is each timestep? {reading.model_of(ds)}", parts)

    def view(self, ds: xr.Dataset) -> View:
        times, measures = tuple(map(float, ds["t"].values)), tuple(_measures(ds))
        controls = (
            Control("measure", "measure", measures, measures[0]),
            Control("t", "t", times, times[len(times) // 2]),
        )
        return View(controls, lambda measure, t: (_along_t(ds, measure, t), _at_t(ds, measure, t)))


def _hardest(ds: xr.Dataset) -> list[tuple[str, str, str]]:
    """By units: where the error is largest, and how large."""
    table, model = frames.difficulty(ds), reading.model_of(ds)
    errors = table[(table["quantity"] == "error") & (table["name"] == model)].dropna(subset="value")
    hardest = []
    for unit in reading.names(ds, "units"):
        rows = errors[errors["units"] == unit].sort_values("value").to_dict("records")
        if rows:
            error = with_interval(rows[-1]["value"], rows[-1]["low"], rows[-1]["high"])
            hardest.append((f"in {unit} units", f"t = {rows[-1]['t']:.2f}", error))
    return hardest


def _definitions(ds: xr.Dataset) -> list[tuple[str, ...]]:
    """Which definition calls which time hard."""
    ds = with_void_marked(ds)
    rows: list[tuple[str, ...]] = []
    for row in difficulty_table(ds).to_dict("records"):
        peak_at = interval_of(row, "peak_t")
        told = f"{peak_at.low:.2f} to {peak_at.high:.2f}" if peak_at.low == peak_at.low else "no interval"
        peak = f"{row['peak_t']:.2f} ({told})" if row["defined"] else "undefined"
        share = with_interval(*interval_of(row, "share_below"))
        meaning = str(ds["definition_meaning"].sel(definition=row["definition"]).values)
        rows.append((row["definition"], peak, share, f"{row['uniform_below']:.2f}", meaning))
    return rows


def _measures(ds: xr.Dataset) -> list[str]:
    """The definitions of difficulty that a result has, or the error in each unit for one without profiles."""
    if "profile" in ds:
        return reading.names(with_void_marked(ds), "definition")
    return [f"{unit} error" for unit in reading.names(ds, "units")]


def _measure(ds: xr.Dataset, measure: str) -> tuple[xr.Dataset, str]:
    """``value``, ``value_low`` and ``value_high`` along t, and their unit."""
    if "profile" in ds:
        one = with_void_marked(ds).sel(definition=measure)
        name, unit = "profile", str(one["definition_unit"].values)
    else:
        one, unit = ds.isel(units=_measures(ds).index(measure)), "mean square over pixels"
        name = "error_mean"
    return one[interval_names(name)].rename(dict(zip(interval_names(name), interval_names("value"), strict=True))), unit


@themed
def _along_t(ds: xr.Dataset, measure: str, t: float) -> Figure:
    """One measure of difficulty along t with its interval, the time that is asked about marked."""
    values, unit = _measure(ds, measure)
    figure, axes = new_figure(7.6, 3.2)
    ax = axes[0, 0]
    value, low, high = interval_of(values, "value")
    ax.fill_between(ds["t"], low, high, color=SAME, alpha=0.18, lw=0)
    ax.plot(ds["t"], value, color=SAME)
    ax.axvline(t, color=MUTED, lw=1)
    if np.all(low > 0):
        ax.set_yscale("log")
    ax.set_title(f"{measure} of {reading.model_of(ds)}")
    ax.set_ylabel(unit)
    time_axis(ax, ds["t"].values, ds["log_snr"].values)
    return figure


def _at_t(ds: xr.Dataset, measure: str, t: float) -> str:
    """The measure at one time with its interval."""
    values, unit = _measure(ds, measure)
    text = interval_text(values.sel(t=t), "value")
    return f"{measure} of {reading.model_of(ds)} at t = {t:.2f}: {text} ({unit}; {OVER_IMAGES})."
