"""The audit of timestep samplers as a figure: what is drawn over the run, and how far that is from uniform."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from consistency_lab.plots.reading import need
from consistency_lab.plots.theme import DASHES, MUTED, SERIES, label_lines, new_figure, themed, time_axis


def audit_frame(ds: xr.Dataset) -> pd.DataFrame:
    """Columns sampler, step, t, share, total_variation, effective_share, run_share: what the figure draws."""
    ds = need(ds, "timesteps", "share", "run_share", "total_variation", "effective_share")
    names = ["share", "run_share", "total_variation", "effective_share"]
    return ds[names].to_dataframe(dim_order=["sampler", "step", "t"]).reset_index()


@themed
def audit(ds: xr.Dataset) -> Figure:
    """Left: density over t, mean over the run. Right: total variation from uniform and effective share, over the run."""
    ds = need(ds, "timesteps", "share", "run_share", "total_variation", "effective_share")
    names = [str(name) for name in ds["sampler"].values]
    figure, axes = new_figure(10.5, 1.6 + 0.32 * max(6, len(names)), 1, 3, width_ratios=(1.4, 1, 1))
    over_t, variation, effective = axes[0]
    t, step = ds["t"].values, ds["step"].values
    bands = len(t)
    short = {name: name.partition("(")[0] if _once(name, names) else name for name in names}
    ends = []
    for i, name in enumerate(names):
        part, look = ds.isel(sampler=i), {"color": SERIES[i % len(SERIES)], "ls": DASHES[i % len(DASHES)]}
        over_t.plot(t, part["run_share"] * bands, label=name, **look)
        variation.plot(step, part["total_variation"], label=name, **look)
        effective.plot(step, part["effective_share"], label=name, **look)
        ends.append((float(part["effective_share"][-1]), short[name], str(look["color"])))
    over_t.set_ylabel("density of timesteps, mean over the run\n(uniform = 1)")
    over_t.set_ylim(bottom=0)
    time_axis(over_t, t, ds["log_snr"].values if "log_snr" in ds else None)
    for ax, title in (
        (variation, "total variation from uniform"),
        (effective, "effective share of a batch\nweighted back to uniform"),
    ):
        ax.set_xlabel("training step")
        ax.set_ylabel(title)
        ax.set_ylim(-0.02, 1.02)
        ax.margins(x=0)
        ax.axhline(0, color=MUTED, lw=0.8)
    label_lines(effective, ends)
    return figure


def _once(name: str, names: list[str]) -> bool:
    """Whether the name without its options still tells a sampler from the others."""
    head = name.partition("(")[0]
    return int(np.sum([other.partition("(")[0] == head for other in names])) == 1
