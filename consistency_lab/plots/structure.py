"""Figures of structure: what is known of the final image along t, and whose image it is after a handoff or a swap of the noise."""

from __future__ import annotations

import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from consistency_lab.plots import probe_frames, reading
from consistency_lab.plots.theme import DASHES, INK, MUTED, SERIES, new_figure, themed, time_axis

LOWEST = -0.25  # estimates of an eps network at high noise can be worse than the mean by orders of magnitude
SHOWN = 4  # curves of handoffs that one panel holds


@themed
def structure(ds: xr.Dataset) -> Figure:
    """Upper: share of the final image that the x0 estimate explains, by band and principal components. Lower: whose image it is."""
    ds = reading.need(ds, "structure")
    table = probe_frames.structure(ds)
    models, parts = reading.names(ds, "model"), probe_frames.parts(ds)
    figure, axes = new_figure(9.2, 6.4, 2, 2, sharex=True)
    fixed = table[(table["quantity"] == "fixed") & (table["name"] == models[0])]
    groups = (("band", "by spatial frequency"), ("components", "by principal component"))
    for ax, (of, title) in zip(axes[0], groups, strict=True):
        _fixed(ax, fixed, parts[parts["of"].isin(["image", of])])
        ax.set_title(f"known of the image, {title}")
        time_axis(ax, ds["t"].values, ds["log_snr"].values, labels=False)
    axes[0, 0].set_ylabel(f"share of variance explained\nby the x0 estimate of {models[0]}")
    handoffs = reading.names(ds, "handoff")
    for ax, kind, title in zip(
        axes[1], ("handoff", "swap"), ("model handed over at t", "noise swapped at t"), strict=True
    ):
        drawn = table[table["quantity"].isin([f"{kind} relative", f"{kind} nearer"])]
        ax.set_title(title)
        if kind == "handoff" and not handoffs:
            ax.text(0.5, 0.5, "needs two models", color=MUTED, ha="center", transform=ax.transAxes, style="italic")
        else:
            _whose(ax, drawn, kind)
        ax.set_ylim(-0.03, 1.03)
        time_axis(ax, ds["t"].values, labels=True)
    axes[1, 0].set_ylabel("whose image is it?\n(1 = the second's, 0 = the first's)")
    return figure


def _fixed(ax: Axes, table: pd.DataFrame, parts: pd.DataFrame) -> None:
    for i, part in enumerate(parts.itertuples()):
        line, whole = table[table["part"] == part.part], part.of == "image"
        colour = INK if whole else SERIES[i % len(SERIES)]
        ax.fill_between(line["t"], line["low"], line["high"], color=colour, alpha=0.07, lw=0)
        width, dashes = 2.2 if whole else 1.5, DASHES[i % len(DASHES)]
        ax.plot(line["t"], line["value"], color=colour, ls=dashes, lw=width, label=str(part.words))
    ax.set_ylim(LOWEST, 1.03)
    ax.axhline(0, color=MUTED, lw=0.8)
    if len(parts):
        ax.legend(loc="lower right", fontsize=7.5, frameon=False)


def _whose(ax: Axes, table: pd.DataFrame, kind: str) -> None:
    known = list(dict.fromkeys(table["name"]))[:SHOWN]
    ax.axhline(0.5, color=MUTED, lw=0.8, ls=(0, (2, 2)))
    handles = []
    for i, name in enumerate(known):
        colour = SERIES[i % len(SERIES)]
        mean = table[(table["name"] == name) & (table["quantity"] == f"{kind} relative")]
        ax.fill_between(mean["t"], mean["low"], mean["high"], color=colour, alpha=0.12, lw=0)
        handles += ax.plot(mean["t"], mean["value"], color=colour, label=f"{name}: relative distance")
        share = table[(table["name"] == name) & (table["quantity"] == f"{kind} nearer")]
        ax.fill_between(share["t"], 1 - share["high"], 1 - share["low"], color=colour, alpha=0.08, lw=0)
        label = f"{name}: share nearer to the second"
        handles += ax.plot(share["t"], 1 - share["value"], color=colour, ls=DASHES[2], lw=1.4, label=label)
    ax.legend(handles=handles, loc="lower left", fontsize=7, frameon=False)
