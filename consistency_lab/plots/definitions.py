"""Figures of what "hard" means: each definition along t, and how far they order the times alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from consistency_lab.intervals import interval_of
from consistency_lab.plots import probe_frames, reading
from consistency_lab.plots.bands import styles
from consistency_lab.plots.cells import WIDE, cell, empty_cell, named
from consistency_lab.plots.theme import MUTED, NULL, new_figure, note, themed, time_axis
from consistency_lab.probes.profiles import difficulty_correlations, difficulty_table

COLUMNS = 4
_TWO_SIDED = LinearSegmentedColormap.from_list("agree", ["#9a3c00", "#e9b38c", "#f3f4f6", "#8fbede", "#0a4a7c"])


@themed
def definitions(results: Sequence[xr.Dataset]) -> Figure:
    """Each definition of difficulty on its own axis, a line a model, with 95 % intervals over images; the hardest times are marked."""
    results = [reading.need(ds, "difficulty") for ds in results]
    tables = [probe_frames.definitions(ds) for ds in results]
    known = list(dict.fromkeys(name for table in tables for name in table["definition"]))
    rows, several = -(-len(known) // COLUMNS), len(results) > 1
    figure, axes = new_figure(9.6, 1.75 * rows + 0.4 + 0.3 * several, rows, COLUMNS, sharex=True)
    looks = [(colour, dashes) for _, colour, dashes in styles([reading.model_of(ds) for ds in results])]
    for i, ax in enumerate(axes.ravel()):
        if i >= len(known):
            ax.set_visible(False)
            continue
        _one(ax, [table[table["definition"] == known[i]] for table in tables], looks, known[i])
        below = i + COLUMNS >= len(known)
        time_axis(ax, results[0]["t"].values, labels=False)
        ax.tick_params(labelbottom=below)
    figure.supxlabel("time t  (1 = noise, 0 = data)", fontsize=9)
    if several:
        lines = [
            Line2D([], [], color=c, ls=d, label=reading.model_of(ds)) for (c, d), ds in zip(looks, results, strict=True)
        ]
        figure.legend(handles=lines, loc="outside lower left", ncols=5, frameon=False, handlelength=3)
    return figure


def _one(ax: Axes, lines: list[pd.DataFrame], looks: list[tuple[str, Any]], name: str) -> None:
    ax.set_title(name)
    unit = next((line["unit"].iloc[0] for line in lines if len(line)), "")
    ax.set_ylabel(unit.replace(" per ", "\nper ").replace(" over ", "\nover "), fontsize=7)
    ax.tick_params(labelsize=7.5)
    every = np.concatenate([line["value"].to_numpy(dtype=float) for line in lines])
    positive = every[np.isfinite(every)]
    if not len(positive):
        note(ax, "undefined at every t")
        return
    for line, (colour, dashes) in zip(lines, looks, strict=True):
        values = line["value"].to_numpy(dtype=float)
        if not np.isfinite(values).any():
            continue
        ax.fill_between(line["t"], line["low"], line["high"], color=colour, alpha=0.2, lw=0)
        ax.plot(line["t"], values, color=colour, ls=dashes)
        best, dot = int(np.nanargmax(values)), NULL if len(lines) == 1 else colour
        ax.plot(line["t"].iloc[best], values[best], "o", color=dot, ms=4.5, clip_on=False, zorder=5)
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
    beside = 0.5 + 0.08 * max(map(len, known), default=0)  # inches of names
    figure, axes = new_figure(beside + WIDE * (len(known) - 1), 1.5 + 0.46 * len(known))
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
