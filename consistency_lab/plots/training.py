"""Figures of training: loss over steps, and the density over t that a recipe draws from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from consistency_lab.plots import frames
from consistency_lab.plots.reading import need
from consistency_lab.plots.theme import (
    DASHES,
    MUTED,
    NULL,
    SAME,
    SERIES,
    label_lines,
    new_figure,
    note,
    themed,
    time_axis,
)

DRAWN = 300


@themed
def loss(ds: xr.Dataset) -> Figure:
    """Training loss: as recorded (faint), and its running median over the last fifth of the steps; beside it, held-out losses."""
    table = frames.training(ds)
    both = has_held_out(ds)
    figure, axes = new_figure(9.6 if both else 7.2, 3.4, 1, 1 + both)
    ax = axes[0, 0]
    ends = []
    for i, (name, line) in enumerate(table.groupby("model", sort=False)):
        colour = SERIES[i % len(SERIES)]
        steps, losses = line["step"].to_numpy(dtype=float), line["loss"].to_numpy(dtype=float)
        # Evenly on the log axis: a long run need not be drawn record by record.
        shown = np.unique(np.geomspace(1, len(steps), min(len(steps), DRAWN)).round().astype(int)) - 1
        smooth = np.array([np.median(losses[(steps >= 0.8 * step) & (steps <= step)]) for step in steps[shown]])
        ax.plot(steps[shown], losses[shown], ".", color=colour, ms=2, alpha=0.3, label=f"_{name} as recorded")
        ax.plot(steps[shown], smooth, color=colour, ls=DASHES[(i // len(SERIES) + i) % len(DASHES)], label=str(name))
        ends.append((float(smooth[-1]), str(name), colour))
    if not ends:
        note(ax, "no training step was recorded")
    else:
        ax.set_yscale("log")
        ax.margins(x=0)
        _step_axis(ax)
    ax.set_xlabel("training step (log scale)")
    ax.set_ylabel("training loss, batch mean\n(log scale, units of the objective)")
    label_lines(ax, ends)
    if both:
        _held_out(axes[0, 1], table)
    return figure


def has_held_out(ds: xr.Dataset) -> bool:
    """Whether any run was given held-out images."""
    return "held_out" in ds and bool(ds["held_out"].notnull().any())


def _step_axis(ax: Axes) -> None:
    """Steps as they are counted, 1, 2 and 5 of each decade (1 alone where there are many): other marks would lie on each other."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    subs = (1.0, 2.0, 5.0) if high < 200 * low else (1.0,)
    ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}".replace(",", "\u202f")))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _held_out(ax: Axes, table: pd.DataFrame) -> None:
    """Held-out losses in the looks that their models have beside it."""
    ends = []
    for i, (name, every) in enumerate(table.groupby("model", sort=False)):
        line, colour = every.dropna(subset="held_out"), SERIES[i % len(SERIES)]
        if len(line):
            dashes = DASHES[(i // len(SERIES) + i) % len(DASHES)]
            ax.plot(line["step"], line["held_out"], color=colour, ls=dashes, marker="o", ms=2.5, label=str(name))
            ends.append((float(line["held_out"].iloc[-1]), str(name), colour))
    ax.set_yscale("log")
    _step_axis(ax)
    ax.set_xlabel("training step (log scale)")
    ax.set_ylabel("held-out loss, averaged weights\n(log scale)")
    label_lines(ax, ends)


@themed
def recipe_density(ds: xr.Dataset) -> Figure:
    """The density over t from which a recipe draws timesteps, beside the uniform one."""
    ds = need(ds, "recipe")
    table = frames.recipe(ds)
    figure, axes = new_figure(7.2, 2.6)
    ax = axes[0, 0]
    ax.axhline(1, color=NULL, ls=(0, (6, 2)), lw=1.4, label="uniform")
    ax.fill_between(table["t"], 0, table["density"], color=SAME, alpha=0.18, lw=0)
    ax.plot(table["t"], table["density"], color=SAME, label="recipe")
    ax.set_ylim(0, max(1.15, float(table["density"].max()) * 1.1))
    ax.set_ylabel("density of timesteps\n(per unit of t)")
    time_axis(ax, table["t"].to_numpy(), ds["log_snr"].values if "log_snr" in ds else None)
    label_lines(ax, [(1.0, "uniform", NULL), (float(table["density"].iloc[0]), "recipe", SAME)])
    ax.axhline(0, color=MUTED, lw=0.8)
    return figure
