"""The paper's Hessian spectra: the density of eigenvalues of diffusion models, GANs and a VAE, per loss and squared filter norm."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from _common import KINDS, Drawn, Source, claim, main, of
from _stored import curves
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from scipy.interpolate import CubicSpline

from consistency_lab.intervals import interval_of
from consistency_lab.paper.plots import frames
from consistency_lab.paper.plots.studies import COLOURS, plain_ticks
from consistency_lab.plots.curvature import density_frame
from consistency_lab.plots.fitting import note_below
from consistency_lab.plots.look import current
from consistency_lab.plots.theme import DASHES, INK, MUTED, new_figure, themed
from consistency_lab.probes.curvature import WIDTH

THINNED = 4  # beside the bulk every so manieth point of a density is kept: bumps are wider
BULK = 0.005  # of the highest density; above it is the bulk
LINEAR = 0.01  # eigenvalues over the loss between its negative and itself are drawn on a linear axis


def frame_of(result: xr.Dataset) -> pd.DataFrame:
    """``eigenvalue`` over the loss, its density ``value, low, high`` (less and more one standard error over probes), above a tenth of one
    eigenvalue in one bump."""
    table = density_frame(result)
    table = table[(table["operator"] == "hessian") & (table["part"] == "all")]
    kept = np.arange(len(table)) % THINNED == 0
    table = table[kept | (table["density"] > BULK * table["density"].max())]
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
    """A spectrum a line: its bulk on linear axes of its own, and all of it on axes that are shared, both logarithmic.

    Ticks at the foot are the outermost eigenvalues with their 95 % intervals over images.
    """
    names = list(table["name"])
    figure, axes = new_figure(8.4, 0.9 + 1.25 * len(names), len(names), 2, fold=False, width_ratios=(1, 1.5))
    low, high = densities["value"].min(), densities["value"].max()
    for i, ((bulk, whole), row) in enumerate(zip(axes, table.to_dict("records"), strict=True)):
        colour = COLOURS[list(KINDS).index(row["kind"])]
        line = densities[densities["name"] == row["name"]].sort_values("eigenvalue")
        last = i == len(names) - 1
        _bulk(bulk, line, colour, WIDTH * (row["hessian_top"] - row["hessian_bottom"]) / row["loss"])
        bulk.set_title(row["name"] if current().narrow else f"{row['name']} ({row['kind']})", color=colour)
        whole.set_xscale("symlog", linthresh=LINEAR)
        whole.set_yscale("log")
        whole.fill_between(line["eigenvalue"], line["low"], line["high"], color=colour, alpha=0.25, lw=0)
        whole.plot(line["eigenvalue"], line["value"], color=colour, lw=1.3)
        for end in ("top", "bottom"):
            at, *between = (x / row["loss"] for x in interval_of(row, f"hessian_{end}"))
            whole.plot(between, [low, low], color=MUTED, lw=3, solid_capstyle="butt", clip_on=False)
            whole.plot([at], [low], "|", color=MUTED, ms=11, mew=1.6, clip_on=False)
        whole.set_ylim(low, 2 * high)
        whole.set_xlim(*_reach(densities))
        ticks = ["−1", "−0.1", "", "0", "", "0.1", "1", "10"] if last else []
        if last and current().narrow:
            ticks[1] = ticks[5] = ""
        whole.set_xticks([-1, -0.1, -LINEAR, 0, LINEAR, 0.1, 1, 10], ticks or [""] * 8)
        whole.set_xticks([], minor=True)
        plain_ticks(whole.yaxis)
        whole.yaxis.set_major_locator(LogLocator(numticks=4))
        whole.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[-1, 0].set_xlabel("the bulk: eigenvalue / loss\n(per squared filter norm)")
    axes[-1, 1].set_xlabel("all: eigenvalue / loss (per squared filter norm;\nlinear within ±0.01, log beyond)")
    figure.supylabel("density of eigenvalues (left: over its highest value; right: log scale)", fontsize=9)
    said = (
        f"Dotted: what one eigenvalue looks like, a normal density as wide as {100 * WIDTH:g} % of its spectrum. Where the bulk "
        "is no wider, its own width is not known."
    )
    note_below(figure, said)
    return figure


def _bulk(ax: Axes, line: pd.DataFrame, colour: str, width: float) -> None:
    """Where the density is at least a two-hundredth of its highest value, over that, as a filled curve; dotted what one eigenvalue is."""
    top = float(line["value"].max())
    inside = line[line["value"] > BULK * top]
    at = np.linspace(inside["eigenvalue"].min(), inside["eigenvalue"].max(), 200)
    if len(inside) > 3:  # the logarithm of a normal density is a parabola, which a spline of a few points is, too
        smooth = np.exp(CubicSpline(inside["eigenvalue"], np.log(inside["value"] / top))(at))
    else:
        smooth = np.interp(at, inside["eigenvalue"], inside["value"] / top)
    smooth /= smooth.max()
    ax.fill_between(at, 0, smooth, color=colour, alpha=0.25, lw=0)
    ax.plot(at, smooth, color=colour, lw=1.3)
    ax.plot(at, np.exp(-0.5 * ((at - at[smooth.argmax()]) / width) ** 2), color=INK, lw=1, ls=DASHES[2])
    ax.set_ylim(0, 1.08)
    ax.set_yticks([0, 0.5, 1], ["0", "", "1"])
    ax.margins(x=0.02)
    ax.axvline(0, color=MUTED, lw=0.8, ls=(0, (2, 2)))
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}".replace("-", "−")))


def _reach(densities: pd.DataFrame) -> tuple[float, float]:
    low, high = float(densities["eigenvalue"].min()), float(densities["eigenvalue"].max())
    return min(1.3 * low, -LINEAR), max(1.3 * high, LINEAR)


def produce(source: Source) -> Drawn:
    table = frames.probes(source.rows("why"), "curvature")
    table["kind"] = [source.kind(family) for family in table["family"]]
    table = table.sort_values("kind", key=lambda kinds: kinds.map(list(KINDS).index), kind="stable", ignore_index=True)
    densities = curves(source, "hessian_spectra", "curvature", frame_of)
    return Drawn({"": (draw(densities, table), densities)}, sentence(table))


if __name__ == "__main__":
    main(produce, __file__)
