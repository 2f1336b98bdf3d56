"""Figure of snapshots: a run on its way to its final model, and runs beside each other by step."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from consistency_lab.intervals import interval_names
from consistency_lab.plots import reading
from consistency_lab.plots.bands import draw_lines, long_frame, styles
from consistency_lab.plots.theme import MUTED, NULL, REFERENCE, new_figure, note, themed

FAMILY = "all runs"
CAVEAT = "Snapshots of one run are not independent models; bands at the left are over noise, for this run."


def snapshot_frame(ds: xr.Dataset, metric: str | None = None) -> pd.DataFrame:
    """Columns quantity ("to final", "between", "reference"), of, step, value, low, high. Without a metric the one of the headline."""
    ds = reading.need(ds, "snapshots", *interval_names("to_final"))
    one = ds.sel(metric=metric or _metric(ds))
    parts = [long_frame(one, "to_final", quantity="to final").rename(columns={"model": "of"})]
    if "family_score" in ds:
        parts.append(long_frame(one, "family_score", quantity="between", of=FAMILY))
    if "between" in ds:
        parts.append(long_frame(one, "between", quantity="between").rename(columns={"pair": "of"}))
    if "reference_score" in ds:
        table = long_frame(one, "reference_score", quantity="reference").rename(columns={"reference": "of"})
        parts.append(
            table.assign(of=table["of"].map(lambda name: f"with the {reading.REFERENCE_NAMES.get(name, name)}"))
        )
    return pd.concat(parts, ignore_index=True)[["quantity", "of", "step", "value", "low", "high"]]


def _metric(ds: xr.Dataset) -> str:
    metrics = reading.names(ds, "metric")
    return "mse" if "mse" in metrics else metrics[0]


@themed
def snapshots(ds: xr.Dataset) -> Figure:
    """The score of each snapshot with the last of its run (left); of runs with each other, and with references, by step (right)."""
    table, metric = snapshot_frame(ds), _metric(ds)
    figure, axes = new_figure(9.2, 3.2, 1, 2)
    left, right = axes[0]
    own, between = (table[table["quantity"] == quantity] for quantity in ("to final", "between"))
    draw_lines(left, own, "step", "of", styles(reading.names(ds, "model")))
    left.set_title("each run with its own end")
    right.set_title("runs with each other")
    lines = styles([FAMILY] if "family_score" in ds else list(dict.fromkeys(between["of"])))
    others = table[table["quantity"] != "to final"]
    looks = ((NULL, (0, (5, 1.5))), (REFERENCE, (0, (1.5, 1.5))))
    names = dict.fromkeys(table[table["quantity"] == "reference"]["of"])
    lines += [(name, *look) for name, look in zip(names, looks, strict=False)]
    if not lines:
        note(right, "one run alone")
    draw_lines(right, others, "step", "of", lines)
    for ax in (left, right):
        step_axis(ax, ds["step"].values)
        ax.axhline(0, color=MUTED, lw=0.8)
        ax.set_ylabel(f"consistency score ({metric})")
    figure.suptitle(CAVEAT, fontsize=7.5, color=MUTED, x=0.02, ha="left")
    return figure


def step_axis(ax: Axes, steps: np.ndarray) -> None:
    """Training steps, logarithmic, some of them named."""
    ax.set_xlabel("training step")
    if len(steps) < 2:
        return
    ax.set_xscale("log")
    apart = np.log(steps[-1] / steps[0]) / 6
    named = [int(steps[-1])]
    for step in steps[-2::-1].tolist():
        if np.log(named[-1] / step) >= apart:
            named.append(step)
    ax.set_xticks(named, [str(step) for step in named])
    ax.xaxis.set_minor_locator(NullLocator())
