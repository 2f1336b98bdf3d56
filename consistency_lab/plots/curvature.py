"""Figures of a curvature result: the density of eigenvalues, and its ends and its trace by noise level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from consistency_lab.intervals import as_value, interval_of
from consistency_lab.plots.reading import model_of, names, need
from consistency_lab.plots.theme import DASHES, MUTED, NULL, SAME, new_figure, note, themed

LOOKS = {"hessian": ("Hessian", SAME, "o"), "gauss_newton": ("Gauss-Newton", NULL, "s")}


def density_frame(ds: xr.Dataset) -> pd.DataFrame:
    """Columns operator, part, eigenvalue, density, error (standard error over probes)."""
    ds = need(ds, "curvature", "grid", "density", "density_error")
    parts = []
    for operator in names(ds, "operator"):
        for part in names(ds, "part"):
            one = ds.sel(operator=operator, part=part)
            frame = pd.DataFrame({"eigenvalue": one["grid"].values, "density": one["density"].values})
            frame = frame.assign(error=one["density_error"].values)
            parts.append(frame.assign(operator=operator, part=part))
    return pd.concat(parts, ignore_index=True)[["operator", "part", "eigenvalue", "density", "error"]]


def number_frame(ds: xr.Dataset) -> pd.DataFrame:
    """Columns operator, part, t, quantity ("top 1", "bottom 1", ..., "trace"), value, low, high, converged (trace: True)."""
    ds = need(ds, "curvature", "eigenvalue", "trace", "converged")
    rows = []
    for operator in names(ds, "operator"):
        for part in names(ds, "part"):
            one = ds.sel(operator=operator, part=part)
            common = {"operator": operator, "part": part, "t": float(one["t"])}
            for end in names(ds, "end"):
                for rank in ds["rank"].values:
                    here = one.sel(end=end, rank=rank)
                    value, converged = as_value(interval_of(here, "eigenvalue")), bool(here["converged"] == 1)
                    rows.append({**common, "quantity": f"{end} {rank}", **value, "converged": converged})
            value = as_value(interval_of(one, "trace"))
            rows.append({**common, "quantity": "trace", **value, "converged": True})
    return pd.DataFrame(rows)


@themed
def spectrum(ds: xr.Dataset) -> Figure:
    """The density of eigenvalues over all samples, with the eigenvalues at its ends."""
    ds = need(ds, "curvature", "width")
    table, numbers = density_frame(ds), number_frame(ds)
    operators = names(ds, "operator")
    figure, axes = new_figure(3.9 * len(operators) + 0.3, 2.9, 1, len(operators))
    size = float(ds.get("parameters", 1))
    for ax, operator in zip(axes[0], operators, strict=True):
        title, colour, _ = LOOKS[operator]
        line = table[(table["operator"] == operator) & (table["part"] == "all")]
        width = float(ds["width"].sel(operator=operator, part="all"))
        # A tenth of one eigenvalue in one bump is the least that is drawn.
        floor = 0.1 / size / (width * np.sqrt(2 * np.pi))
        if not np.isfinite(floor):
            note(ax, "no density is known")
            continue
        low, high = (np.clip(line["density"] + sign * line["error"], floor, None) for sign in (-1, 1))
        ax.fill_between(line["eigenvalue"], low, high, color=colour, alpha=0.2, lw=0)
        ax.plot(line["eigenvalue"], np.clip(line["density"], floor, None), color=colour, lw=1.3)
        ends = numbers[
            (numbers["operator"] == operator) & (numbers["part"] == "all") & (numbers["quantity"] != "trace")
        ]
        for row in ends.to_dict("records"):
            if np.isfinite(row["value"]):
                style = "-" if row["converged"] else DASHES[2]
                ax.axvline(row["value"], ymin=0.0, ymax=0.07, color=MUTED, lw=1.4, ls=style)
        ax.set_yscale("log")
        ax.set_ylim(bottom=floor)
        ax.set_title(f"{title}, all samples" if ds.sizes["part"] > 1 else title)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.ticklabel_format(axis="x", scilimits=(-2, 4))
        ax.set_xlabel(f"eigenvalue ({_unit(ds)})")
    axes[0, 0].set_ylabel("density of eigenvalues")
    figure.suptitle(
        f"{model_of(ds)}, {int(size):,} parameters; ticks: the outermost eigenvalues",
        fontsize=9,
        color=MUTED,
        x=0.02,
        ha="left",
    )
    return figure


@themed
def by_level(ds: xr.Dataset) -> Figure:
    """The largest and the smallest eigenvalue and the trace, over all samples and by noise level, with 95 % intervals over images."""
    ds = need(ds, "curvature", "eigenvalue")
    table = number_frame(ds)
    figure, axes = new_figure(9.2, 2.8, 1, 3)
    parts = names(ds, "part")
    # Noise at the left, as everywhere.
    order = ["all", *sorted((p for p in parts if p != "all"), key=lambda p: -float(ds["t"].sel(part=p)))]
    titles = {"top 1": "largest eigenvalue", "bottom 1": "smallest eigenvalue", "trace": "trace"}
    for ax, (quantity, title) in zip(axes[0], titles.items(), strict=True):
        for i, operator in enumerate(names(ds, "operator")):
            label, colour, marker = LOOKS[operator]
            rows = table[(table["operator"] == operator) & (table["quantity"] == quantity)].set_index("part").loc[order]
            if not np.isfinite(rows["value"]).any():
                note(ax, "not found")
                continue
            shift = (i - (ds.sizes["operator"] - 1) / 2) * 0.16
            _points(ax, np.arange(len(order)) + shift, rows, colour, marker, label)
        ax.set_title(title)
        ax.set_xticks(range(len(order)), labels=[p.removeprefix("t = ") for p in order])
        ax.set_xlabel("time t" if len(order) > 1 else "")
        if len(order) > 1:
            ax.axvline(0.5, color=MUTED, lw=0.8, ls=(0, (2, 2)))
        ax.set_xlim(-0.5, len(order) - 0.5)
        ax.axhline(0, color=MUTED, lw=0.8)
    axes[0, 0].set_ylabel(_unit(ds))
    if ds.sizes["operator"] > 1:
        axes[0, 2].legend(frameon=False, fontsize=8, loc="best")
    figure.suptitle(f"{model_of(ds)}; hollow: not converged", fontsize=9, color=MUTED, x=0.02, ha="left")
    return figure


def _points(ax: Axes, x: np.ndarray, rows: pd.DataFrame, colour: str, marker: str, label: str) -> None:
    ax.vlines(x, rows["low"], rows["high"], color=colour, lw=1.3)
    good = rows["converged"].to_numpy(dtype=bool)
    ax.plot(x[good], rows["value"][good], marker, color=colour, ms=4.5, label=label)
    ax.plot(x[~good], rows["value"][~good], marker, color=colour, ms=4.5, mfc="none")


def _unit(ds: xr.Dataset) -> str:
    """What an eigenvalue is measured in."""
    return "loss per squared filter norm" if ds.attrs.get("scale") == "filter norms" else "loss per squared weight"
