"""Figure of quality: every measure of models, the control and the references."""

from __future__ import annotations

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.intervals import interval_names
from consistency_lab.plots import reading
from consistency_lab.plots.bands import long_frame
from consistency_lab.plots.theme import CEILING, REFERENCE, SAME, new_figure, themed

COLOURS = {"model": SAME, "control": CEILING, "reference": REFERENCE}


def quality_frame(ds: xr.Dataset) -> pd.DataFrame:
    """Columns measure, better, row, role, samples, value, low, high, and bias of Frechet distances."""
    ds = reading.need(ds, "quality", *interval_names("value"), "frechet_bias")
    table = long_frame(ds, "value")
    for name in ("role", "samples"):
        table[name] = table["row"].map(ds[name].to_series())
    table["better"] = table["measure"].map(ds["better"].to_series())
    first = table["measure"] == reading.names(ds, "measure")[0]
    table["bias"] = table["row"].map(ds["frechet_bias"].to_series()).where(first)
    return table[["measure", "better", "row", "role", "samples", "value", "low", "high", "bias"]]


@themed
def quality(ds: xr.Dataset) -> Figure:
    """A panel per measure, a row per set of images, with intervals over samples; the line is the control's value."""
    table = quality_frame(ds)
    measures, rows = reading.names(ds, "measure"), reading.names(ds, "row")
    figure, axes = new_figure(9.8, 2 * (1.0 + 0.22 * len(rows)), 2, 3, sharey=True, gridspec_kw={"wspace": 0.06})
    for ax, measure in zip(axes.ravel(), measures, strict=True):
        part = table[table["measure"] == measure]
        for y, row in enumerate(part.to_dict("records")):
            colour = COLOURS[row["role"]]
            ax.plot([row["low"], row["high"]], [y, y], color=colour, lw=1.8)
            ax.plot(row["value"], y, "o", color=colour, ms=4.5)
            if row["role"] == "control":
                ax.axvline(row["value"], color=colour, lw=0.8, ls=(0, (4, 3)))
        ax.set_title(measure.partition(" (")[0])
        ax.set_xlabel(f"{part['better'].iloc[0]} is better", fontsize=7.5)
        ax.grid(axis="y", visible=False)
        ax.set_yticks(range(len(rows)), rows)
        ax.set_ylim(len(rows) - 0.5, -0.5)
    return figure
