"""Figures of denoising errors along t: one model beside closed-form references, or several on the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from consistency_lab.plots import frames, reading
from consistency_lab.plots.theme import (
    DASHES,
    MUTED,
    NULL,
    REFERENCE,
    SERIES,
    label_lines,
    new_figure,
    themed,
    time_axis,
)

REFERENCE_LOOKS = {"Gaussian denoiser": (NULL, (0, (5, 1.5))), "optimal denoiser": (REFERENCE, (0, (1.5, 1.2)))}
_LABELS = {"error": "squared error\n(mean over pixels)", "excess": "excess error\n(mean over pixels)"}


class _Line(NamedTuple):
    """What is drawn of a table of `together`, how, and what it is called at its end."""

    model: str
    name: str
    colour: str
    dashes: Any
    width: float
    label: str


def together(results: Sequence[xr.Dataset]) -> pd.DataFrame:
    """`frames.difficulty` of several models, one below the other, with a column model before the others."""
    parts = [frames.difficulty(ds).assign(model=reading.model_of(ds)) for ds in results]
    table = pd.concat(parts, ignore_index=True)
    return table[["model", *(column for column in table.columns if column != "model")]]


@themed
def difficulty(results: Sequence[xr.Dataset]) -> Figure:
    """Error per timestep in eps, x0 and v units with closed-form references (upper), the excess over them (lower).

    Args:
        results: of one model; or of several on the same images at the same times, whose references are those of the first, and of which
            the excess over the Gaussian denoiser is drawn.
    """
    results = [reading.need(ds, "difficulty") for ds in results]
    table, units = together(results), reading.names(results[0], "units")
    rows = ["error", "excess"] if (table["quantity"] == "excess").any() else ["error"]
    figure, axes = new_figure(9.2, 2.75 * len(rows) + 0.3, len(rows), len(units), sharex=True)
    for y, what in enumerate(rows):
        lines = _lines(results, what, set(table[table["quantity"] == what]["name"]))
        for x, unit in enumerate(units):
            ax = axes[y, x]
            ends = _panel(ax, table[(table["quantity"] == what) & (table["units"] == unit)], lines)
            if what == "error":
                ax.set_title(f"in {unit} units")
            log_snr = results[0]["log_snr"].values if y == 0 else None
            time_axis(ax, results[0]["t"].values, log_snr, labels=y == len(rows) - 1)
            if x == 0:
                ax.set_ylabel(_LABELS[what])
            if x == len(units) - 1:
                label_lines(ax, ends, size=7.5)
    for ax in axes[:-1].ravel():
        ax.set_xlabel("")
    return figure


def _lines(results: Sequence[xr.Dataset], what: str, there: set[str]) -> list[_Line]:
    models, lines = [reading.model_of(ds) for ds in results], []
    looks = [(SERIES[i % len(SERIES)], DASHES[i % len(DASHES)]) for i in range(len(models))]
    if what == "excess" and len(models) > 1:
        over = "Gaussian denoiser" if "Gaussian denoiser" in there else sorted(there)[0]
        short = over.removesuffix(" denoiser")
        return [_Line(m, over, *look, 1.8, f"{m} over {short}") for m, look in zip(models, looks, strict=True)]
    if what == "error":
        lines = [_Line(m, m, *look, 2.2, m) for m, look in zip(models, looks, strict=True)]
    for name, (colour, dashes) in REFERENCE_LOOKS.items():
        short, look = name.removesuffix(" denoiser"), (colour, dashes) if len(models) == 1 else (MUTED, dashes)
        if name in there:
            lines.append(_Line(models[0], name, *look, 1.5, short if what == "error" else f"over {short}"))
    return lines


def _panel(ax: Axes, table: pd.DataFrame, lines: Sequence[_Line]) -> list[tuple[float, str, str]]:
    """Draw the lines with their bands; their ends as `label_lines` takes them. Time runs from noise to data: a line ends at its first t."""
    ends = []
    for each in lines:
        line = table[(table["model"] == each.model) & (table["name"] == each.name)].sort_values("t")
        if line.empty:
            continue
        ax.fill_between(line["t"], line["low"], line["high"], color=each.colour, alpha=0.18, lw=0)
        ax.plot(line["t"], line["value"], color=each.colour, ls=each.dashes, lw=each.width, label=each.label)
        ends.append((float(line["value"].iloc[0]), each.label, each.colour))
    if (table["quantity"] == "error").all():
        if (table["value"] > 0).all():
            ax.set_yscale("log")
        return ends
    ax.axhline(0, color=MUTED, lw=0.9)
    # Excess has both signs and spans decades: linear around zero, logarithmic beyond.
    linear = max(float(table["value"].abs().quantile(0.25)), 1e-9)
    ax.set_yscale("symlog", linthresh=10 ** np.floor(np.log10(linear)))
    _thin(ax)
    return ends


def _thin(ax: Axes, most: int = 7) -> None:
    """Every so many of a logarithmic axis's marks, zero among them, so that their labels do not lie on each other."""
    marks = [float(y) for y in ax.yaxis.get_majorticklocs() if ax.get_ylim()[0] <= y <= ax.get_ylim()[1]]
    step = -(-len(marks) // most)
    if step > 1 and 0.0 in marks:
        ax.set_yticks(marks[marks.index(0.0) % step :: step])
