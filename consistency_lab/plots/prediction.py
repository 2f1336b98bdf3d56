"""Figure of a prediction: how alike linear denoisers of disjoint sets are, along noise levels and by principal component."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from consistency_lab.plots import reading
from consistency_lab.plots.bands import draw_lines, long_frame, styles
from consistency_lab.plots.theme import MUTED, new_figure, themed, time_axis

MOST = 7  # sizes that are drawn: eyes can tell so many lines apart


def prediction_frame(ds: xr.Dataset) -> pd.DataFrame:
    """Columns quantity ("score", "component score"), states, n, t, component, value, low, high: components at the cleanest level alone.

    ``low`` and ``high``: of 95 % of pairs of sets, along own trajectories; elsewhere missing.
    """
    ds = reading.need(ds, "prediction", "score", "component_score")
    along = long_frame(ds, "score", quantity="score")
    components = long_frame(_cleanest(ds), "component_score", quantity="component score")
    table = pd.concat([along, components], ignore_index=True)
    return table[["quantity", "states", "n", "t", "component", "value", "low", "high"]]


@themed
def prediction(ds: xr.Dataset) -> Figure:
    """Scores along t for own trajectories and for the same states, a line a size, and those of components at the cleanest level.

    Bands hold 95 % of pairs of sets.
    """
    ds = reading.need(ds, "prediction", "score", "component_score")
    sizes = ds["n"].values
    sizes = sizes[np.unique(np.linspace(0, len(sizes) - 1, MOST).round().astype(int))]
    table, states = prediction_frame(ds.sel(n=sizes)), reading.names(ds, "states")
    table = table.assign(line=[f"n = {n}" for n in table["n"]])
    lines = styles([f"n = {n}" for n in sizes])
    figure, axes = new_figure(3.3 * len(states) + 3.3, 3.2, 1, len(states) + 1)
    scores = table[table["quantity"] == "score"]
    for ax, name in zip(axes[0], states, strict=False):
        draw_lines(ax, scores[scores["states"] == name], "t", "line", lines)
        time_axis(ax, ds["t"].values, ds["log_snr"].values)
        _dress(ax, name)
    last, first = axes[0, -1], table[(table["quantity"] == "component score") & (table["states"] == states[0])]
    draw_lines(last, first.dropna(subset="value"), "component", "line", lines)
    last.set_xscale("log")
    last.set_xlabel("principal component, by falling variance")
    _dress(last, f"{states[0]}, t = {float(_cleanest(ds)['t'].item()):.2g}")
    return figure


def _cleanest(ds: xr.Dataset) -> xr.Dataset:
    return ds.isel(t=[int(np.argmin(ds["t"].values))])


def _dress(ax: Axes, title: str) -> None:
    ax.set_title(title)
    ax.set_ylabel("predicted score (mse)")
    ax.set_ylim(-0.03, 1.03)
    ax.axhline(0, color=MUTED, lw=0.8)
