"""Figures of what probes found: difficulty along t, loss along a line in weight space."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from consistency_lab.intervals import interval_of
from consistency_lab.plots import frames, reading
from consistency_lab.plots.theme import (
    DASHES,
    INK,
    MUTED,
    NULL,
    REFERENCE,
    SAME,
    label_lines,
    new_figure,
    themed,
    time_axis,
)

REFERENCE_LOOKS = {"Gaussian denoiser": (NULL, (0, (5, 1.5))), "optimal denoiser": (REFERENCE, (0, (1.5, 1.2)))}


@themed
def difficulty(ds: xr.Dataset) -> Figure:
    """Error per timestep in eps, x0 and v units with closed-form references (upper), the excess over them (lower)."""
    ds = reading.need(ds, "difficulty")
    table = frames.difficulty(ds)
    units = reading.names(ds, "units")
    rows = ["error", "excess"] if (table["quantity"] == "excess").any() else ["error"]
    figure, axes = new_figure(9.2, 2.75 * len(rows) + 0.3, len(rows), len(units), sharex=True)
    model = reading.model_of(ds)
    for y, what in enumerate(rows):
        for x, unit in enumerate(units):
            ax = axes[y, x]
            part = table[(table["quantity"] == what) & (table["units"] == unit)]
            ends = []
            for name, line in part.sort_values("t").groupby("name", sort=False):
                colour, style = REFERENCE_LOOKS.get(str(name), (SAME, "-"))
                ax.fill_between(line["t"], line["low"], line["high"], color=colour, alpha=0.18, lw=0)
                ax.plot(
                    line["t"], line["value"], color=colour, ls=style, lw=2.2 if name == model else 1.5, label=str(name)
                )
                # Time runs from noise to data, so the right end of a line is its first t.
                short = str(name).removesuffix(" denoiser")
                ends.append((float(line["value"].iloc[0]), short if what == "error" else f"over {short}", colour))
            if what == "error":
                ax.set_title(f"in {unit} units")
                if (part["value"] > 0).all():
                    ax.set_yscale("log")
            else:
                ax.axhline(0, color=MUTED, lw=0.9)
                # Excess has both signs and spans decades: linear around zero, logarithmic beyond.
                linear = max(float(part["value"].abs().quantile(0.25)), 1e-9)
                ax.set_yscale("symlog", linthresh=10 ** np.floor(np.log10(linear)))
            time_axis(ax, ds["t"].values, ds["log_snr"].values if y == 0 else None, labels=y == len(rows) - 1)
            if x == 0:
                ax.set_ylabel(
                    "squared error\n(mean over pixels)" if what == "error" else "excess error\n(mean over pixels)"
                )
            if x == len(units) - 1:
                label_lines(ax, ends, size=7.5)
    for ax in axes[:-1].ravel():
        ax.set_xlabel("")
    return figure


@themed
def landscape(ds: xr.Dataset) -> Figure:
    """Loss along a line in weight space: its mean with a 95 % interval over images, and each bin of t by itself."""
    ds = reading.need(ds, "landscape")
    table = frames.landscape(ds)
    bins = [name for name in table["name"].unique() if name != "all t"]
    figure, axes = new_figure(7.6, 2.9, 1, 2 if bins else 1)
    path = str(ds.attrs.get("path", "position on the line"))
    whole = table[table["name"] == "all t"]
    ax = axes[0, 0]
    ax.fill_between(whole["position"], *interval_of(whole, "loss")[1:], color=SAME, alpha=0.18, lw=0)
    ax.plot(whole["position"], whole["loss"], color=SAME, label="all t")
    ax.set_title("all timesteps, 95 % over images" if bins else "mean, 95 % over images")
    if bins:
        right, ends = axes[0, 1], []
        # One hue that fades towards data: a colour map is too dark on the dark page or too light on the white one.
        opacity = np.linspace(0.55, 1.0, len(bins))
        for i, name in enumerate(bins):
            line = table[table["name"] == name]
            right.plot(
                line["position"],
                line["loss"],
                color=SAME,
                alpha=opacity[i],
                lw=1.4,
                ls=DASHES[i % len(DASHES)],
                label=name,
            )
            ends.append((float(line["loss"].iloc[-1]), name, INK))
        right.set_title("by timestep (bin centres)")
        if (table["loss"] > 0).all():
            right.set_yscale("log")
        right.margins(x=0)
        label_lines(right, ends, size=7.5)
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
