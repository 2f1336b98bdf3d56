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
from consistency_lab.probes.lanczos import Quadrature

THINNED = 4  # every so manieth point of a density is kept: bumps are wider
BULK = 0.9  # of all eigenvalues, between which there are as many below as above
SEEN = 0.005  # of the highest density
POINTS = 121  # of the bulk's
LINEAR = 0.01  # eigenvalues over the loss between its negative and itself are drawn on a linear axis


def frame_of(result: xr.Dataset) -> pd.DataFrame:
    """``eigenvalue`` over the loss, its density ``value, low, high`` (less and more one standard error over probes).

    ``view``: "all" eigenvalues, where the density is above a tenth of one of them in one bump; or the "bulk", where a bump is only as wide
    as nodes are apart, of results that have their nodes. ``width`` of a bump, over the loss.
    """
    one = result.sel(operator="hessian", part="all")
    loss, width = float(result["loss"][0]), float(one["width"])
    table = density_frame(result)
    table = table[(table["operator"] == "hessian") & (table["part"] == "all")].iloc[::THINNED]
    floor = 0.1 / float(result["parameters"]) / (width * np.sqrt(2 * np.pi))
    table = table[table["density"] >= floor].assign(view="all", width=width, floor=floor)
    if "node" in one and np.isfinite(one["node"]).any():
        nodes = Quadrature(one["node"].values, one["weight"].values)
        low, high, apart = nodes.middle(BULK)
        width = apart or width
        grid = np.linspace(low - 4 * width, high + 4 * width, POINTS)
        each = nodes.density(grid, width)
        found = {"eigenvalue": grid, "density": each.mean(0), "error": each.std(0, ddof=1) / len(each) ** 0.5}
        fine = pd.DataFrame(found).assign(view="bulk", width=width, floor=0.0)
        table = pd.concat([table, fine], ignore_index=True)
    ends = {
        name: np.maximum(table["density"] + s * table["error"], table["floor"]) * loss
        for name, s in (("low", -1), ("high", 1))
    }
    at = {"eigenvalue": table["eigenvalue"] / loss, "value": table["density"] * loss}
    return pd.DataFrame({"view": table["view"], **at, **ends, "width": table["width"] / loss})


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
    if "view" not in densities:  # data of before the nodes were kept
        densities = densities.assign(view="all", width=np.nan)
    every, bulks = (densities[densities["view"] == view] for view in ("all", "bulk"))
    figure, axes = new_figure(8.4, 0.9 + 1.25 * len(names), len(names), 2, fold=False, width_ratios=(1, 1.5))
    low, high = every["value"].min(), every["value"].max()
    for i, ((bulk, whole), row) in enumerate(zip(axes, table.to_dict("records"), strict=True)):
        colour = COLOURS[list(KINDS).index(row["kind"])]
        line = every[every["name"] == row["name"]].sort_values("eigenvalue")
        own = bulks[bulks["name"] == row["name"]].sort_values("eigenvalue")
        last = i == len(names) - 1
        if own.empty:
            own = _seen(line, WIDTH * (row["hessian_top"] - row["hessian_bottom"]) / row["loss"])
        _bulk(bulk, own, colour)
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
        whole.set_xlim(*_reach(every))
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
    said = "Dotted: what one eigenvalue looks like at the left. Where the bulk is no wider, its own width is not known."
    note_below(figure, said)
    return figure


def _seen(line: pd.DataFrame, width: float) -> pd.DataFrame:
    """Where a density of all eigenvalues, whose bumps are of that width, is not small beside its highest value."""
    line = line[line["value"] > SEEN * line["value"].max()]
    at = np.linspace(line["eigenvalue"].min(), line["eigenvalue"].max(), POINTS)
    if len(line) > 3:  # the logarithm of a normal density is a parabola, which a spline of a few points is, too
        value = np.exp(CubicSpline(line["eigenvalue"], np.log(line["value"]))(at))
    else:
        value = np.interp(at, line["eigenvalue"], line["value"])
    return pd.DataFrame({"eigenvalue": at, "value": value, "low": value, "high": value, "width": width})


def _bulk(ax: Axes, line: pd.DataFrame, colour: str) -> None:
    """The density over its highest value as a filled curve, and dotted what one eigenvalue is."""
    at, top = line["eigenvalue"].to_numpy(), float(line["value"].max())
    ax.fill_between(at, 0, line["value"] / top, color=colour, alpha=0.25, lw=0)
    ax.fill_between(at, line["low"] / top, line["high"] / top, color=colour, alpha=0.25, lw=0)
    ax.plot(at, line["value"] / top, color=colour, lw=1.3)
    middle, width = at[int(line["value"].argmax())], line["width"].iloc[0]
    one = np.linspace(middle - 4 * width, middle + 4 * width, POINTS)
    ax.plot(one, np.exp(-0.5 * ((one - middle) / width) ** 2), color=INK, lw=1, ls=DASHES[2])
    ax.set_xlim(at[0], at[-1])
    ax.set_ylim(0, max(1.08, 1.02 * float(line["high"].max()) / top))
    ax.set_yticks([0, 0.5, 1], ["0", "", "1"])
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
