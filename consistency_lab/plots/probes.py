"""The figure of a landscape: loss along a line in weight space."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from consistency_lab.intervals import interval_of
from consistency_lab.plots import frames, reading
from consistency_lab.plots.theme import (
    LEVELS,
    MUTED,
    SAME,
    new_figure,
    themed,
)


@themed
def landscape(ds: xr.Dataset) -> Figure:
    """Loss along a line in weight space: its mean with a 95 % interval over images, and each bin of t by itself."""
    ds = reading.need(ds, "landscape")
    table = frames.landscape(ds)
    bins = [name for name in table["name"].unique() if name != "all t"]
    figure, axes = new_figure(8.2 if bins else 7.6, 2.9, 1, 2 if bins else 1)
    path = str(ds.attrs.get("path", "position on the line"))
    whole = table[table["name"] == "all t"]
    ax = axes[0, 0]
    ax.fill_between(whole["position"], *interval_of(whole, "loss")[1:], color=SAME, alpha=0.18, lw=0)
    ax.plot(whole["position"], whole["loss"], color=SAME, label="all t")
    ax.set_title("all timesteps, 95 % over images" if bins else "mean, 95 % over images")
    if bins:
        right, t = axes[0, 1], ds["t"].values
        colours = [to_hex(LEVELS(1 - float(each))) for each in t]
        for name, colour in zip(bins, colours, strict=True):
            line = table[table["name"] == name]
            right.plot(line["position"], line["loss"], color=colour, lw=1.4, label=name)
        right.set_title("by timestep (bin centres)")
        if (table["loss"] > 0).all():
            right.set_yscale("log")
        right.margins(x=0)
        _level_bar(right, t, colours)
    between = reading.is_between(ds)
    for panel in axes[0]:
        panel.set_xlabel(
            "position  (0 = first, 1 = second model)" if between else "position  (0 = the model, filter norms)"
        )
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.axvline(0, color=MUTED, lw=0.8, ls=(0, (2, 2)), zorder=1)
        if between:
            panel.axvline(1, color=MUTED, lw=0.8, ls=(0, (2, 2)), zorder=1)
    ax.set_ylabel(f"loss\n({ds.attrs.get('units', 'mean squared error in eps')})")
    figure.suptitle(path, fontsize=9, color=MUTED, x=0.02, ha="left")
    return figure


def _level_bar(ax: Axes, t: np.ndarray, colours: list[str]) -> None:
    """The lines' colours by noise level, in the place of names at their ends, which lie on each other."""
    order = np.argsort(t)
    known = t[order]
    edges = np.concatenate([[0.0], (known[1:] + known[:-1]) / 2, [1.0]])
    shades = ScalarMappable(BoundaryNorm(edges, len(known)), ListedColormap([colours[i] for i in order]))
    figure = ax.get_figure(root=True)
    assert figure is not None
    marks = known if len(known) <= 10 else known[:: -(-len(known) // 10)]
    bar = figure.colorbar(shades, ax=ax, pad=0.02, spacing="proportional", ticks=marks, format="%.2g")
    bar.set_label("time t  (1 = noise, 0 = data)")
    bar.ax.tick_params(length=2, labelsize=7.5)
    bar.outline.set_visible(False)
