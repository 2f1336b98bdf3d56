"""Figures of what "hard" means: each definition along t, and how far they order the times alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from consistency_lab.intervals import interval_of
from consistency_lab.plots import probe_frames, reading
from consistency_lab.plots.cells import cell, empty_cell, named
from consistency_lab.plots.theme import MUTED, NULL, SAME, new_figure, note, themed, time_axis
from consistency_lab.probes.profiles import difficulty_correlations, difficulty_table

COLUMNS = 4
_TWO_SIDED = LinearSegmentedColormap.from_list("agree", ["#9a3c00", "#e9b38c", "#f3f4f6", "#8fbede", "#0a4a7c"])


@themed
def definitions(ds: xr.Dataset) -> Figure:
    """Each definition of difficulty on its own axis, with its 95 % interval over images; the hardest time is marked."""
    ds = reading.need(ds, "difficulty")
    table = probe_frames.definitions(ds)
    known = list(dict.fromkeys(table["definition"]))
    rows = -(-len(known) // COLUMNS)
    figure, axes = new_figure(9.6, 1.75 * rows + 0.4, rows, COLUMNS, sharex=True)
    for i, ax in enumerate(axes.ravel()):
        if i >= len(known):
            ax.set_visible(False)
            continue
        _one(ax, table[table["definition"] == known[i]], known[i])
        below = i + COLUMNS >= len(known)
        time_axis(ax, ds["t"].values, labels=False)
        ax.tick_params(labelbottom=below)
    figure.supxlabel("time t  (1 = noise, 0 = data)", fontsize=9)
    return figure


def _one(ax: Axes, line: pd.DataFrame, name: str) -> None:
    ax.set_title(name)
    ax.set_ylabel(line["unit"].iloc[0].replace(" per ", "\nper ").replace(" over ", "\nover "), fontsize=7)
    ax.tick_params(labelsize=7.5)
    values = line["value"].to_numpy(dtype=float)
    if not np.isfinite(values).any():
        note(ax, "undefined at every t")
        return
    ax.fill_between(line["t"], line["low"], line["high"], color=SAME, alpha=0.2, lw=0)
    ax.plot(line["t"], values, color=SAME)
    best = int(np.nanargmax(values))
    ax.plot(line["t"].iloc[best], values[best], "o", color=NULL, ms=4.5, clip_on=False, zorder=5)
    positive = values[np.isfinite(values)]
    if (positive > 0).all() and positive.max() > 30 * positive.min():
        ax.set_yscale("log")
        # A lower end at or below zero has no place on this axis.
        ax.set_ylim(bottom=positive.min() / 3)
    else:
        ax.axhline(0, color=MUTED, lw=0.8)
        reach = float(np.ptp(np.append(positive, 0.0))) or 1.0
        ax.set_ylim(min(0.0, positive.min()) - 0.15 * reach, max(0.0, positive.max()) + 0.25 * reach)


@themed
def agreement(ds: xr.Dataset) -> Figure:
    """Spearman's rank correlation between definitions, each with its 95 % interval over images."""
    ds = reading.need(ds, "difficulty")
    return agreement_matrix(difficulty_correlations(ds), list(difficulty_table(ds)["definition"]))


@themed
def agreement_matrix(table: pd.DataFrame, known: list[str]) -> Figure:
    """The same of a table of `difficulty_correlations`, over the definitions that it knows."""
    figure, axes = new_figure(1.9 + 0.72 * len(known), 1.5 + 0.46 * len(known))
    ax, size = axes[0, 0], len(known)
    for row in table.to_dict("records"):
        x, y, rho = known.index(row["first"]), known.index(row["second"]) - 1, interval_of(row, "rho")
        if np.isfinite(rho.estimate):
            cell(ax, x, y, rho, _TWO_SIDED((rho.estimate + 1) / 2), sign="+")
        else:
            empty_cell(ax, x, y)
    named(ax, range(size - 1), known[:-1], known[1:])
    ax.set_title("do two definitions order the times alike?\nSpearman's ρ [95 % over images]")
    return figure
