"""How hard each timestep is for one model, by every definition of hard."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.intervals import interval_of
from consistency_lab.kinds.base import Drawing, Fold, Kind, Part, Section, Table
from consistency_lab.kinds.numbers import OVER_IMAGES, interval_text, records, with_interval
from consistency_lab.kinds.views import Control, View
from consistency_lab.kinds.words import facts_of
from consistency_lab.plots import definitions, frames, probe_frames, reading
from consistency_lab.plots import difficulty as errors
from consistency_lab.plots.theme import MUTED, SAME, new_figure, themed, time_axis
from consistency_lab.probes.profiles import difficulty_correlations, difficulty_table, with_void_marked

_DEFINITIONS = (
    "Every definition on its own axis with its 95 % interval over images; the dot is the hardest time. Excess below zero means better than "
    "the closed-form denoiser; that over the optimal denoiser is of training images, which it holds."
)


class Difficulty(Kind):
    place = 20

    def figures(self, ds: xr.Dataset) -> Iterator[Drawing]:
        model, units = reading.model_of(ds), reading.names(ds, "units")
        yield Drawing(
            "curves",
            errors.difficulty([ds]),
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
            definitions.definitions([ds]),
            probe_frames.definitions(ds),
            f"Difficulty of each timestep of {model} by {ds.sizes['definition']} definitions.",
            _DEFINITIONS,
        )
        yield _agreement(ds, "agreement")

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
            parts += [*more, _definitions(ds)]
        return Section(f"How hard is each timestep? {reading.model_of(ds)}", parts)

    def together(self, results: Sequence[xr.Dataset]) -> Section | None:
        """Several models on the same axes, where they were asked at the same times on the same images in the same units."""
        models, asked = [reading.model_of(ds) for ds in results], [_asked(ds) for ds in results]
        if len(set(models)) < len(models) or any(each != asked[0] for each in asked):
            return None
        table = errors.together(results)
        hardest = [{unit: f"{at}: {error}" for unit, at, error in _hardest(ds)} for ds in results]
        rows = [(unit, *(own.get(unit, "–") for own in hardest)) for unit in dict.fromkeys(itertools.chain(*hardest))]
        parts: list[Part] = [
            Drawing(
                "curves",
                errors.difficulty(results),
                table,
                f"Denoising errors of {', '.join(models)} along t beside closed-form references.",
                "Error per timestep, mean over pixels and samples with its 95 % interval, all on the same images. Grey: closed-form "
                "denoisers. Which times are hard depends on the units: an error in eps units is divided by alpha²/sigma² to be one in x0 "
                "units. Below: the error minus that of a closed-form denoiser.",
            ),
            Table(("largest error", *models), rows),
        ]
        if all("profile" in ds for ds in results):
            marked = [with_void_marked(ds) for ds in results]
            parts.append(
                Drawing(
                    "definitions",
                    definitions.definitions(marked),
                    pd.concat([probe_frames.definitions(ds).assign(model=reading.model_of(ds)) for ds in marked]),
                    f"Difficulty of each timestep of {', '.join(models)}, each definition on its own axis.",
                    _DEFINITIONS,
                )
            )
            parts += [
                Fold(
                    f"{model}: every definition, and how they agree",
                    [_agreement(ds, f"agreement-{model}"), _definitions(ds)],
                )
                for model, ds in zip(models, marked, strict=True)
            ]
        return Section("How hard is each timestep?", parts)

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


def _asked(ds: xr.Dataset) -> tuple[object, ...]:
    """What models must share to be drawn on one axis: times, units, and the images with their noise."""
    facts = facts_of(ds)
    return (*ds["t"].values.tolist(), *reading.names(ds, "units"), str(facts.get("images")), facts.get("noise_seed"))


def _agreement(ds: xr.Dataset, name: str) -> Drawing:
    return Drawing(
        name,
        definitions.agreement(ds),
        difficulty_correlations(ds),
        f"Rank correlations between definitions of difficulty of {reading.model_of(ds)}.",
        "1: the two order the times alike; −1: what one calls hard the other calls easy. Intervals are over images.",
    )


def _definitions(ds: xr.Dataset) -> Table:
    """Which definition calls which time hard."""
    head = ("definition", "hardest t (those not told from it)", "share at t < 0.5 [95 %]", "if flat", "what it is")
    ds = with_void_marked(ds)
    rows: list[tuple[str, ...]] = []
    for row in difficulty_table(ds).to_dict("records"):
        _, low, high = interval_of(row, "peak_t")
        told = f"{low:.2f} to {high:.2f}" if low == low else "no interval"
        peak = f"{row['peak_t']:.2f} ({told})" if row["defined"] else "undefined"
        share = interval_text(row, "share_below")
        meaning = str(ds["definition_meaning"].sel(definition=row["definition"]).values)
        rows.append((row["definition"], peak, share, f"{row['uniform_below']:.2f}", meaning))
    return Table(head, rows)


def _measures(ds: xr.Dataset) -> list[str]:
    """The definitions of difficulty that a result has, or the error in each unit for one without profiles."""
    if "profile" in ds:
        return reading.names(with_void_marked(ds), "definition")
    return [f"{unit} error" for unit in reading.names(ds, "units")]


def _measure(ds: xr.Dataset, measure: str) -> tuple[xr.Dataset, str, str]:
    """What holds the measure along t, under which name, and its unit."""
    if "profile" in ds:
        one = with_void_marked(ds).sel(definition=measure)
        return one, "profile", str(one["definition_unit"].values)
    return ds.isel(units=_measures(ds).index(measure)), "error_mean", "mean square over pixels"


@themed
def _along_t(ds: xr.Dataset, measure: str, t: float) -> Figure:
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


def _at_t(ds: xr.Dataset, measure: str, t: float) -> str:
    """The measure at one time with its interval."""
    one, name, unit = _measure(ds, measure)
    text = interval_text(one.sel(t=t), name)
    return f"{measure} of {reading.model_of(ds)} at t = {t:.2f}: {text} ({unit}; {OVER_IMAGES})."
