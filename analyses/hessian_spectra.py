"""The paper's Hessian spectra: the density of eigenvalues of diffusion models, GANs and a VAE, per loss and squared filter norm."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from _common import KINDS, Drawn, Source, claim, main, of
from _stored import curves
from matplotlib.figure import Figure

from consistency_lab.intervals import interval_of
from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.studies import COLOURS, plain_ticks
from consistency_lab.plots.curvature import density_frame
from consistency_lab.plots.theme import MUTED, new_figure, themed

THINNED = 4  # of the points of a density every so manieth is kept: bumps are wider
LINEAR = 0.01  # eigenvalues over the loss between its negative and itself are drawn on a linear axis


def frame_of(result: xr.Dataset) -> pd.DataFrame:
    """``eigenvalue`` over the loss, its density ``value, low, high`` (less and more one standard error over probes), above a tenth of one
    eigenvalue in one bump."""
    table = density_frame(result)
    table = table[(table["operator"] == "hessian") & (table["part"] == "all")].iloc[::THINNED]
    loss, width = float(result["loss"][0]), float(result["width"].sel(operator="hessian", part="all"))
    floor = 0.1 / float(result["parameters"]) / (width * np.sqrt(2 * np.pi))
    table = table[table["density"] >= floor]
    ends = {
        name: np.clip(table["density"] + s * table["error"], floor, None) * loss
        for name, s in (("low", -1), ("high", 1))
    }
    return pd.DataFrame({"eigenvalue": table["eigenvalue"] / loss, "value": table["density"] * loss, **ends})


def sentence(table: pd.DataFrame) -> str:
    parts = [
        f"{row['name']} {of(row, 'hessian_relative_top', 2)} ({100 * row['hessian_negative_share']:.2g} % of the density is negative)"
        for _, row in table.iterrows()
    ]
    return (
        f"Largest eigenvalue of the Hessian over the loss: {'; '.join(parts)}; {claim(table, 'hessian_relative_top')}."
    )


@themed
def draw(densities: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """One spectrum a panel on shared axes; ticks at the foot are the outermost eigenvalues with their 95 % intervals over images."""
    names, columns = list(table["name"]), 2
    lines = -(-len(names) // columns)
    figure, axes = new_figure(8.4, 0.5 + 1.5 * lines, lines, columns, sharex=True, sharey=True)
    low, high = densities["value"].min(), densities["value"].max()
    for i, (ax, row) in enumerate(zip(axes.flat, table.to_dict("records"), strict=False)):
        colour = COLOURS[list(KINDS).index(row["kind"])]
        line = densities[densities["name"] == row["name"]].sort_values("eigenvalue")
        ax.set_xscale("symlog", linthresh=LINEAR)
        ax.set_yscale("log")
        ax.fill_between(line["eigenvalue"], line["low"], line["high"], color=colour, alpha=0.25, lw=0)
        ax.plot(line["eigenvalue"], line["value"], color=colour, lw=1.3)
        for end in ("top", "bottom"):
            at, *between = (x / row["loss"] for x in interval_of(row, f"hessian_{end}"))
            ax.plot(between, [low, low], color=MUTED, lw=3, solid_capstyle="butt", clip_on=False)
            ax.plot([at], [low], "|", color=MUTED, ms=11, mew=1.6, clip_on=False)
        ax.set_ylim(low, 2 * high)
        ax.set_title(f"{row['name']} ({row['kind']})", color=colour)
        ax.set_xticks([-1, -0.1, -LINEAR, 0, LINEAR, 0.1, 1, 10], ["−1", "−0.1", "", "0", "", "0.1", "1", "10"])
        ax.set_xticks([], minor=True)
        if i >= len(names) - columns:
            ax.set_xlabel("eigenvalue / loss (per squared filter norm;\nlinear within ±0.01, log beyond)")
            ax.tick_params(labelbottom=True)
        if i % columns == 0:
            ax.set_ylabel("density\n(smoothed; log scale)")
        plain_ticks(ax.yaxis)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    return figure


def produce(source: Source) -> Drawn:
    table = frames.probes(source.rows("why"), "curvature")
    table["kind"] = [source.kind(family) for family in table["family"]]
    table = table.sort_values("kind", key=lambda kinds: kinds.map(list(KINDS).index), kind="stable", ignore_index=True)
    densities = curves(source, "hessian_spectra", "curvature", frame_of)
    return Drawn({"": (draw(densities, table), densities)}, sentence(table))


if __name__ == "__main__":
    main(produce, __file__)
