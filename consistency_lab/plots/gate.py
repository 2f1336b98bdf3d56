"""Figures of a gate: the interval over samples seen, and its worst pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from consistency_lab.gates.result import worst_pairs
from consistency_lab.intervals import interval_names
from consistency_lab.plots import reading
from consistency_lab.plots.bands import long_frame
from consistency_lab.plots.differences import draw_differences, shortened
from consistency_lab.plots.theme import CEILING, NULL, SAME, label_lines, new_figure, themed

WORDS = {"score": "consistency score", "shortfall": "ceiling − score"}


def judged(ds: xr.Dataset) -> str:
    """The variable that is held to a bound: the score, or where there is none what it lacks to the ceiling."""
    return "score" if np.isfinite(ds["bound"].values).all() else "shortfall"


def gate_frame(ds: xr.Dataset) -> pd.DataFrame:
    """Columns quantity ("score", "ceiling", "shortfall"), metric, samples, value, low, high."""
    ds = reading.need(ds, "gate", *interval_names("score"), "bound", "samples")
    there = [name for name in ("score", "ceiling", "shortfall") if name in ds]
    table = pd.concat([long_frame(ds, name, quantity=name) for name in there], ignore_index=True)
    return table[["quantity", "metric", "samples", "value", "low", "high"]]


@themed
def gate_figure(ds: xr.Dataset) -> Figure:
    """What is held to a bound after each look, with its interval, the bound and, where it was measured, the ceiling: a panel a metric."""
    metrics = reading.names(ds, "metric")
    figure, axes = new_figure((4.3 if len(metrics) == 1 else 4.8) * len(metrics), 3.2, 1, len(metrics))
    for ax, metric in zip(axes[0], metrics, strict=True):
        draw_looks(ax, ds, metric)
        ax.set_title(f"{metric}: {ds['decision'].sel(metric=metric).item()}")
    return figure


def draw_looks(ax: Axes, ds: xr.Dataset, metric: str) -> None:
    """One metric of a gate over samples seen."""
    table, what = gate_frame(ds), judged(ds)
    table = table[table["metric"] == metric]
    line, ceiling = (table[table["quantity"] == name] for name in (what, "ceiling"))
    if what == "score":
        bound, named, wide = (
            float(ds["bound"].sel(metric=metric)),
            "bound",
            4 * (1 - float(ds["bound"].sel(metric=metric))),
        )
    else:
        bound, named, wide = float(ds.attrs["margin"]), "margin", 4 * max(float(ds.attrs["margin"]), 0.005)
    # How far an interval of few samples reaches says little: the axis is that of the last one, and of the bound.
    last = line[["low", "high", "value"]].iloc[-1].dropna().clip(bound - 4 * wide, bound + 4 * wide)
    low, high = min(bound - wide, *last), max(bound + wide, *last)
    ends = [(bound, named, NULL), (float(line["value"].iloc[-1]), what, SAME)]
    ax.axhline(bound, color=NULL, ls=(0, (5, 1.5)), lw=1.2)
    if what == "score":
        high = min(high, 1 + wide / 20)
        if len(ceiling):
            ax.plot(ceiling["samples"], ceiling["value"], color=CEILING, ls=(0, (1.5, 1.2)))
            ends.append((float(ceiling["value"].iloc[-1]), "ceiling", CEILING))
    else:
        ax.axhline(0.0, color=CEILING, ls=(0, (1.5, 1.2)), lw=1.2)
        ends.append((0.0, "ceiling", CEILING))
    ax.fill_between(line["samples"], line["low"].fillna(low), line["high"].fillna(high), color=SAME, alpha=0.18, lw=0)
    ax.plot(line["samples"], line["value"], color=SAME, marker="o", ms=2.5)
    ax.set_ylim(low, high)
    ax.set_xlabel("samples seen")
    ax.set_ylabel(f"{WORDS[what]} (no unit)")
    label_lines(ax, ends, size=7.5)


def worst_frame(ds: xr.Dataset) -> pd.DataFrame:
    """Columns metric, sample, name, distance_in_nulls (1: as images of other noise): the worst pairs of each metric, the worst first."""
    ds = reading.need(ds, "gate", "distance", "null", "worst_images")
    rows = [(metric, *pair) for metric in reading.names(ds, "metric") for pair in worst_pairs(ds, metric)]
    return pd.DataFrame(rows, columns=["metric", "sample", "name", "distance_in_nulls"])


@themed
def worst_figure(ds: xr.Dataset) -> Figure:
    """The worst pairs: reference, candidate, and where they differ, brightened; under each name its distance in nulls."""
    columns = []
    for pair in worst_frame(ds).drop_duplicates("sample").to_dict("records"):
        one, other = ds["worst_images"].sel(worst=pair["sample"]).values
        columns.append(
            (f"{shortened(pair['name'])}\n{pair['metric']} {pair['distance_in_nulls']:.3g} × null", one, other)
        )
    reference, candidate = reading.names(ds, "side")
    return draw_differences(columns, (reference, candidate))
