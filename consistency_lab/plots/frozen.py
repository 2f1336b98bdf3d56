"""Figure of a frozen comparison: models about the same states, beside the same models along their own trajectories."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.intervals import add_interval, mean_interval
from consistency_lab.plots import reading
from consistency_lab.plots.bands import draw_lines, long_frame, styles
from consistency_lab.plots.theme import MUTED, NULL, SAME, new_figure, note, themed, time_axis

SAME_STATES, OWN = "the same states", "own trajectories"


def frozen_frame(ds: xr.Dataset, metric: str | None = None) -> pd.DataFrame:
    """Columns pair, t, value, low, high, quantity ("distance", "drift") and name: which states the distance is about.

    Without a metric the one of the headline.
    """
    ds = reading.need(ds, "frozen comparison", "distance")
    metric = metric or reading.headline_metric(ds)
    one, bounded = ds.sel(metric=metric), reading.drawn_back_by(ds, metric)
    found = bounded(mean_interval(one["distance"].transpose("pair", "t", "sample").values))
    means = xr.Dataset(coords={"pair": one["pair"], "t": one["t"]})
    add_interval(means, "distance", ("pair", "t"), found)
    parts = [long_frame(means, "distance", quantity="distance", name=SAME_STATES)]
    if "drift" in one:
        parts.append(long_frame(one, "along_distance", quantity="distance", name=OWN))
        parts.append(long_frame(one, "drift", quantity="drift", name="drift"))
    return pd.concat(parts, ignore_index=True)


@themed
def frozen(ds: xr.Dataset) -> Figure:
    """The distance about the same states and along own trajectories, mean over pairs (left); the drift of each pair (right)."""
    ds = reading.need(ds, "frozen comparison", "distance")
    metric, table = reading.headline_metric(ds), frozen_frame(ds)
    figure, axes = new_figure(9.2, 3.2, 1, 2)
    left, right = axes[0]
    means = table[table["quantity"] == "distance"].groupby(["name", "t"], as_index=False)["value"].mean()
    means = means.assign(low=np.nan, high=np.nan)  # of a mean over pairs that share models and states there is none
    looks = [(SAME_STATES, SAME, "-"), (OWN, NULL, (0, (5, 1.5)))]
    draw_lines(left, means, "t", "name", [look for look in looks if look[0] in set(means["name"])])
    left.set_yscale("log" if (means["value"] > 0).all() else "linear")
    left.set_ylabel(reading.quantity(ds, metric))
    left.set_title("distance of x0 estimates")
    right.set_title("drift: share made by the trajectories")
    if "drift" in ds:
        draw_lines(right, table[table["quantity"] == "drift"], "t", "pair", styles(reading.names(ds, "pair")))
        right.axhline(0, color=MUTED, lw=0.8)
        right.set_ylabel("1 − same states / own trajectories")
    else:
        note(right, "made without a comparison along own trajectories")
    for ax in (left, right):
        time_axis(ax, ds["t"].values, ds["log_snr"].values)
    return figure
