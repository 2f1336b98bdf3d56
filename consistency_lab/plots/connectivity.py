"""Figure of connectivity: the loss on paths between two models, and the barriers by noise level."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.intervals import interval_names, interval_of
from consistency_lab.plots import probe_frames, reading
from consistency_lab.plots.theme import DASHES, MUTED, NULL, SERIES, label_lines, new_figure, themed, time_axis


@themed
def connectivity(ds: xr.Dataset) -> Figure:
    """Loss along each path with a 95 % interval over images (left); the barrier of each path at each noise level (right)."""
    ds = reading.need(ds, "connectivity", "mean_loss", *interval_names("consistency"))
    table = probe_frames.connectivity(ds)
    figure, axes = new_figure(9.2, 3.3, 1, 2)
    left, right = axes[0]
    blank = float(ds["mean_loss"])
    left.axhline(blank, color=MUTED, lw=1, ls=(0, (1.5, 1.5)))
    left.text(0.5, blank, "answers with the data mean", color=MUTED, fontsize=7.5, ha="center", va="bottom")
    ends = []
    for i, path in enumerate(reading.names(ds, "path")):
        colour, dashes = SERIES[i], DASHES[i % len(DASHES)]
        line = table[(table["path"] == path) & (table["quantity"] == "loss")]
        left.fill_between(line["position"], line["low"], line["high"], color=colour, alpha=0.18, lw=0)
        left.plot(line["position"], line["value"], color=colour, ls=dashes, label=path)
        by_t = table[(table["path"] == path) & (table["quantity"] == "barrier")].sort_values("t")
        right.fill_between(by_t["t"], by_t["low"], by_t["high"], color=colour, alpha=0.18, lw=0)
        right.plot(by_t["t"], by_t["value"], color=colour, ls=dashes, label=path)
        # Time runs from noise to data: the right end of a line is its first t.
        ends.append((float(by_t["value"].iloc[0]), path, colour))
    left.set_yscale("log")
    left.set_xlim(0, 1)
    left.set_xlabel(f"position  (0 = {ds.attrs.get('first', 'first')}, 1 = {ds.attrs.get('second', 'second')})")
    left.set_ylabel("denoising loss, held-out images\n(eps units, mean over pixels)")
    left.set_title("along the path")
    right.set_title("barrier by noise level")
    right.set_ylabel("loss above the chord (eps units)")
    right.axhline(0, color=MUTED, lw=0.8)
    right.set_ylim(bottom=min(0.0, float(np.min(interval_of(ds, "barrier_by_t").low))))
    time_axis(right, ds["t"].values)
    label_lines(right, ends, size=8)
    score = interval_of(ds, "consistency")
    figure.suptitle(
        f"consistency of their images {score.estimate:.3f} [{score.low:.3f}, {score.high:.3f}]",
        fontsize=9,
        color=NULL if score.estimate < 0.5 else MUTED,
        x=0.02,
        ha="left",
    )
    return figure
