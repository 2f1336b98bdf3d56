"""Figures of landscapes beside the line itself: gradients along it, planes, and the smoothness of several models on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from consistency_lab.errors import UserError
from consistency_lab.intervals import as_value, interval_names, interval_of
from consistency_lab.plots.reading import model_of, need
from consistency_lab.plots.theme import DASHES, MUTED, SAME, SERIES, label_lines, new_figure, note, themed

# Losses over the loss at the model; beyond the last it is all steep.
LEVELS = (0.25, 0.5, 0.7, 0.85, 0.95, 1.05, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0, 1000.0)
SHADES = LinearSegmentedColormap.from_list("loss", ["#08306b", "#2f7fb8", "#a6cee3", "#f2efe6", "#f0b27a", "#a33b12"])
# What has no scale of weights or loss in it: its title, and its unit.
UNITS = {
    "relative_curvature": "per squared position",
    "relative_lipschitz": "per squared position",
    "roughness": "share of the range on ± the span",
    "predictiveness": "cosine of gradients at ± the distance",
}
NUMBERS = {
    "relative_curvature": "curvature / loss",
    "relative_lipschitz": "Lipschitz / loss",
    "roughness": "roughness",
    "predictiveness": "predictiveness",
}


def gradient_frame(ds: xr.Dataset) -> pd.DataFrame:
    """Columns quantity ("cosine", "change"), position, value, low, high; the model itself, at 0, included."""
    ds = need(ds, "landscape", *interval_names("gradient_cosine", "gradient_change"))
    parts = []
    for name, at_model in (("cosine", 1.0), ("change", 0.0)):
        position = np.append(ds["gradient_position"].values, 0.0)
        values = as_value(np.append(part, at_model) for part in interval_of(ds, f"gradient_{name}"))
        parts.append(pd.DataFrame({"quantity": name, "position": position, **values}).sort_values("position"))
    return pd.concat(parts, ignore_index=True)


@themed
def gradients(ds: xr.Dataset) -> Figure:
    """How far the gradient at the model foretells the gradient along the line, with 95 % intervals over images."""
    table = gradient_frame(ds)
    figure, axes = new_figure(7.6, 2.7, 1, 2)
    titles = {"cosine": "gradient: cosine with the model's", "change": "gradient: change over its norm"}
    for ax, (name, title) in zip(axes[0], titles.items(), strict=True):
        line = table[table["quantity"] == name]
        ax.fill_between(line["position"], line["low"], line["high"], color=SAME, alpha=0.18, lw=0)
        ax.plot(line["position"], line["value"], color=SAME, marker="o", ms=3.5)
        ax.axvline(0, color=MUTED, lw=0.8, ls=(0, (2, 2)), zorder=1)
        ax.set_title(title)
        ax.set_xlabel("position")
        ax.set_ylabel("no unit")
    axes[0, 0].axhline(0, color=MUTED, lw=0.8)
    axes[0, 1].set_ylim(bottom=0)
    return figure


def plane_frame(ds: xr.Dataset) -> pd.DataFrame:
    """Columns name ("mean", "t = 0.3"), x, y, loss, and relative: over the loss at (0, 0) of that name."""
    ds = need(ds, "plane", "loss")
    tables = {"mean": ds["loss"]}
    if "loss_by_t" in ds:
        tables |= {f"t = {t:.2g}": ds["loss_by_t"].isel(t=i) for i, t in enumerate(ds["t"].values)}
    parts = []
    for name, table in tables.items():
        frame = table.drop_vars("t", errors="ignore").to_dataframe("loss").reset_index()[["x", "y", "loss"]]
        centre = float(table.sel(x=0.0, y=0.0))
        parts.append(frame.assign(name=name, relative=frame["loss"] / centre if centre > 0 else np.nan))
    return pd.concat(parts, ignore_index=True)[["name", "x", "y", "loss", "relative"]]


@themed
def plane(ds: xr.Dataset, most: int = 3) -> Figure:
    """Contours of the loss over the loss at the model: the mean, and up to ``most`` noise levels on the same levels."""
    ds = need(ds, "plane", "loss")
    table = plane_frame(ds)
    levels = [name for name in table["name"].unique() if name != "mean"]
    shown = [levels[i] for i in np.unique(np.linspace(0, len(levels) - 1, min(most, len(levels))).round().astype(int))]
    names = ["mean", *shown]
    wide, high = (float(np.ptp(ds[axis].values)) for axis in "xy")
    figure, axes = new_figure(
        2.35 * len(names) + 1.1, 2.2 * min(max(high / wide, 0.5), 1.6) + 1.0, 1, len(names), sharey=True
    )
    used = table[table["name"].isin(names)]["relative"]
    if not np.isfinite(used).all() or not (used > 0).all():
        note(axes[0, 0], "the loss is not positive and finite everywhere")
        return figure
    if used.min() == used.max():
        note(axes[0, 0], "the loss does not change")
        return figure
    inside = [level for level in LEVELS if used.min() < level < used.max()]
    if len(inside) < 4:  # a flat plane
        inside = [
            level for level in MaxNLocator(8).tick_values(used.min(), used.max()) if used.min() < level < used.max()
        ]
    edges = [float(used.min()), *inside, float(used.max())]
    far = max(edges[-1], 1 / edges[0])
    colours = LogNorm(1 / far, far)  # 1, the model's own loss, in the middle of the shades
    for ax, name in zip(axes[0], names, strict=True):
        part = table[table["name"] == name].pivot(index="y", columns="x", values="relative")
        x, y, z = part.columns.to_numpy(), part.index.to_numpy(), part.to_numpy()
        drawn = ax.contourf(x, y, z, levels=edges, cmap=SHADES, norm=colours, extend="neither")
        ax.contour(x, y, z, levels=edges[1:-1], colors="#101318", linewidths=0.35, alpha=0.5)
        _corners(ax, ds, names=ax is axes[0, 0])
        ax.set_aspect("equal")
        ax.set_title("all timesteps" if name == "mean" and levels else name)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.grid(False)
    three = ds.sizes["corner"] == 3
    unit = "1 = first to second model" if three else "filter norms"
    axes[0, 0].set_ylabel(f"second axis ({unit})")
    axes[0, 0].set_xlabel(f"first axis ({unit})")
    bar = figure.colorbar(drawn, ax=axes, shrink=0.9, pad=0.015)
    marks: list[float] = []
    for level in edges[1:-1]:  # those that have room
        if not marks or np.log(level / marks[-1]) > 0.06 * np.log(edges[-1] / edges[0]):
            marks.append(level)
    bar.set_ticks(marks, labels=[f"{level:.6g}" for level in marks])
    bar.set_label("loss / loss at the model")
    bar.ax.minorticks_off()
    title = (
        f"{model_of(ds)}, {ds.attrs.get('path', '')}" if len(names) > 1 and not three else str(ds.attrs.get("path", ""))
    )
    figure.suptitle(title, fontsize=9, color=MUTED, x=0.02, ha="left")
    return figure


def _corners(ax: Axes, ds: xr.Dataset, names: bool) -> None:
    """The models on the plane."""
    for x, y, name in zip(ds["corner_x"].values, ds["corner_y"].values, ds["corner"].values, strict=True):
        ax.plot(x, y, "o", ms=4.5, mfc="#fefefe", mec="#101318", mew=0.9)
        if names and ds.sizes["corner"] > 1:
            # On coloured cells, which keep their colours on a dark page: the text keeps its own too.
            ax.annotate(str(name), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7, color="#101318")


# Numbers that depend on how far from the model one looks: the variable that says it, the variable and coordinate with other reaches.
REACHES = {
    "roughness": ("roughness_span", "roughness_on", "span"),
    "predictiveness": ("predictiveness_distance", "predictiveness_at", "distance"),
}


def reach_of(ds: xr.Dataset, name: str) -> float:
    """How far from the model the number of that name was taken; of an older result, which does not say, read off its positions."""
    said, _, _ = REACHES[name]
    if said in ds:
        return float(ds[said])
    if name == "predictiveness":
        return float(np.abs(ds["gradient_position"]).min()) if "gradient_position" in ds.coords else float("nan")
    axes = [ds[axis].values for axis in ("position", "x", "y") if axis in ds.coords]
    return max((float(np.ptp(axis)) / 2 for axis in axes), default=float("nan"))


def reach_frame(ds: xr.Dataset) -> pd.DataFrame:
    """Columns quantity, reach, said, value, low, high: the numbers of `REACHES` at every reach, the headline's last.

    ``said`` is false for an older result, which knows them at one reach and does not say which.
    """
    rows = []
    for name, (said, variable, over) in REACHES.items():
        reach = reach_of(ds, name)
        if variable in ds:
            for i, other in enumerate(ds[over].values.tolist()):
                if other != reach:
                    rows.append((name, other, True, *interval_of(ds.isel({over: i}), variable)))
        if name in ds:
            rows.append((name, reach, said in ds, *interval_of(ds, name)))
    return pd.DataFrame(rows, columns=["quantity", "reach", "said", "value", "low", "high"])


def smoothness_frame(results: Sequence[xr.Dataset]) -> pd.DataFrame:
    """Columns model, path, quantity, reach, value, low, high: the numbers of `NUMBERS`, which have no scale of weights or of loss in them.

    Those that depend on the reach have a row for each (see `reach_frame`); it is NaN for the others.
    """
    rows: list[dict[Any, Any]] = []
    for ds in results:
        ds = need(ds, "landscape", "loss")
        who = {"model": model_of(ds), "path": str(ds.attrs.get("path", ""))}
        reaches = reach_frame(ds)
        for name in NUMBERS:
            if name in REACHES and name in ds:
                found: list[dict[Any, Any]] = (
                    reaches[reaches["quantity"] == name].drop(columns="said").to_dict("records")
                )
            else:
                found = [{"quantity": name, "reach": np.nan, **as_value(interval_of(ds, name, np.nan))}]
            rows += [who | row for row in found]
    if not rows:
        raise UserError("there is nothing to draw: give at least one landscape result.")
    return pd.DataFrame(rows)


@themed
def smoothness(results: Sequence[xr.Dataset]) -> Figure:
    """Landscapes of several models on one axis: the loss over the loss at the model, and the numbers that have no scale in them."""
    if not results:
        raise UserError("there is nothing to draw: give at least one landscape result.")
    results = [need(ds, "landscape", *interval_names("loss")) for ds in results]
    figure, axes = new_figure(
        12.6, 2.2 + 0.35 * len(results), 1, 1 + len(NUMBERS), width_ratios=[1.5, *[1] * len(NUMBERS)]
    )
    ax, ends = axes[0, 0], []
    for i, ds in enumerate(results):
        colour, centre = SERIES[i % len(SERIES)], float(ds["loss"].sel(position=0.0))
        ax.plot(ds["position"], ds["loss"] / centre, color=colour, ls=DASHES[i % len(DASHES)], lw=1.6)
        ends.append((float(ds["loss"][-1]) / centre, model_of(ds), colour))
    ax.set_yscale("log")
    ax.set_xlabel("position")
    ax.set_title("loss / loss at the model")
    ax.margins(x=0)
    label_lines(ax, ends, size=7)
    heights = np.arange(len(results))[::-1]
    for panel, (name, title) in zip(axes[0, 1:], NUMBERS.items(), strict=True):
        for i, (ds, height) in enumerate(zip(results, heights, strict=True)):
            part = smoothness_frame([ds])
            rows = part[part["quantity"] == name].sort_values("reach").to_dict("records")
            colour = SERIES[i % len(SERIES)]
            for place, row in zip(np.linspace(0.24, -0.24, len(rows)) if len(rows) > 1 else [0.0], rows, strict=True):
                panel.plot([row["low"], row["high"]], [height + place] * 2, color=colour, lw=1.4)
                panel.plot(row["value"], height + place, "o", color=colour, ms=4 if len(rows) == 1 else 3)
                if name in REACHES:  # how far one looked stands beside the number
                    text = f"\u00b1{row['reach']:.2g}"
                    at, way = (row["value"], height + place), {"xytext": (3, 1.5), "textcoords": "offset points"}
                    panel.annotate(text, at, fontsize=5.5, color=MUTED, **way)
        panel.set_title(title, fontsize=8.5)
        panel.set_xlabel(UNITS[name], fontsize=8)
        panel.set_yticks(heights, labels=[model_of(ds) if panel is axes[0, 1] else "" for ds in results])
        panel.set_ylim(-0.6, len(results) - 0.4)
        panel.xaxis.set_major_locator(MaxNLocator(3))
        if name != "roughness":
            panel.axvline(0, color=MUTED, lw=0.8)
        else:
            panel.set_xlim(left=0)
    return figure
