"""Figures of a result of any kind, made from its variables alone: ``x`` with ``x_low`` and ``x_high`` along its dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from consistency_lab.intervals import interval_names, interval_of
from consistency_lab.plots.theme import (
    DASHES,
    MUTED,
    SAME,
    SERIES,
    ink_on,
    label_lines,
    new_figure,
    note,
    themed,
    time_axis,
)

MAIN = ("t", "step", "position")  # what an axis is made of, where a variable has one of them
MOST_CELLS = 20_000  # of a variable that is drawn: beyond are images and raw samples
MOST_NAMED = 8  # lines that eyes can tell apart
MOST_ROWS = 24
MOST_LISTED = 12  # entries of a variable that a table says one by one
ENDS = ("value", "low", "high")  # the columns of a number with its interval
Bounds = tuple[float, float, float]


def estimates(ds: xr.Dataset) -> list[str]:
    """The variables of numbers that have dimensions, ends of intervals left out."""
    return [
        str(name)
        for name, each in ds.data_vars.items()
        if each.dims and _is_number(each) and not _is_end(ds, str(name))
    ]


def drawn(ds: xr.Dataset) -> list[str]:
    """Those of `estimates` that a figure has a place for."""
    return [name for name in estimates(ds) if ds[name].size <= MOST_CELLS]


def single(ds: xr.Dataset) -> dict[str, Bounds]:
    """The numbers without dimensions, variables or attributes, as (value, low, high); NaN for ends that are not known."""
    known = {str(name): float(x) for name, x in ds.attrs.items() if isinstance(x, int | float)}
    known |= {str(name): float(x) for name, x in ds.data_vars.items() if not x.dims and _is_number(x)}
    return {name: tuple(interval_of(known, name)) for name in known if not _is_end(known, name)}


def frame(ds: xr.Dataset, name: str) -> pd.DataFrame:
    """A row a cell: a column per dimension, then value, and low and high where they are known."""
    columns = {column: ds[key] for column, key in zip(ENDS, interval_names(name), strict=True) if key in ds}
    table = xr.Dataset({column: each.variable for column, each in columns.items()}, {d: ds[d] for d in ds[name].dims})
    return table.to_dataframe(dim_order=list(table["value"].dims)).reset_index()


def entries(ds: xr.Dataset, name: str) -> list[tuple[str, Bounds]]:
    """Every entry of a variable in words, with its value, low and high; none of one of more than `MOST_LISTED`."""
    if ds[name].size > MOST_LISTED:
        return []
    table = frame(ds, name).reindex(columns=[*ds[name].dims, *ENDS])
    ends = table[[*ENDS]].astype(float).itertuples(index=False, name=None)
    return [
        (f"{name}, {entry}", each)
        for entry, each in zip(_entries(table, list(map(str, ds[name].dims))), ends, strict=True)
    ]


def said(ds: xr.Dataset, name: str) -> str:
    """``error along t (8), 0.1 to 0.5``: a variable in words."""
    values = ds[name].values[np.isfinite(ds[name].values)]
    over = ", ".join(f"{dim} ({length})" for dim, length in ds[name].sizes.items())
    reach = f"{values.min():.3g} to {values.max():.3g}".replace("-", "−") if values.size else "undefined everywhere"
    return f"{name} along {over}, {reach}"


def main_dimension(ds: xr.Dataset, name: str) -> str | None:
    """The dimension that a variable is drawn along: one of `MAIN`, else the longest that has numbers in order; None without any."""
    numeric = [str(dim) for dim in ds[name].dims if ds.sizes[dim] > 1 and dim in ds.coords and _is_number(ds[dim])]
    return min(numeric, key=lambda dim: (MAIN.index(dim) if dim in MAIN else len(MAIN), -ds.sizes[dim]), default=None)


@themed
def figure(ds: xr.Dataset, name: str) -> Figure:
    """One variable: lines along its main dimension; without one a table of colours for two dimensions, else a row an entry.

    Args:
        ds: a result. name: one of its `drawn`.
    """
    table, along = frame(ds, name), main_dimension(ds, name)
    unit = ds[name].attrs.get("units", ds[name].attrs.get("unit", ""))
    label = f"{name} ({unit})" if unit else name
    others = [str(dim) for dim in ds[name].dims if dim != along]
    if not np.isfinite(table["value"].astype(float)).any():
        made, axes = new_figure(7.2, 1.6)
        note(axes[0, 0], f"{name} is undefined everywhere")
        return made
    if along is None and len(others) == 2 and ds[name].size > 1:
        return _cells(table, others, label)
    table = table.assign(entry=_entries(table, others))
    if along is None:
        return _rows(table, label)
    made, axes = new_figure(7.2, 3.4)
    ax = axes[0, 0]
    ends = _lines(ax, table, along)
    if (table["value"] > 0).all() and table["value"].max() > 100 * table["value"].min():
        ax.set_yscale("log")
    ax.set_ylabel(label)
    ax.set_xlabel(along)
    if along == "t":
        log_snr = ds.coords.get("log_snr")
        time_axis(ax, ds["t"].values, log_snr.values if log_snr is not None and log_snr.dims == ("t",) else None)
    label_lines(ax, ends)
    return made


def points_frame(numbers: Mapping[str, Bounds]) -> pd.DataFrame:
    """Columns name, value, low, high."""
    return pd.DataFrame([(name, *ends) for name, ends in numbers.items()], columns=["name", *ENDS])


@themed
def points(numbers: Mapping[str, Bounds]) -> Figure:
    """The first `MOST_LISTED` of single numbers with their intervals, each on an axis of its own."""
    numbers = dict(list(numbers.items())[:MOST_LISTED])
    made, axes = new_figure(5.2, 0.25 + 0.6 * len(numbers), len(numbers), 1)
    for ax, (name, (value, low, high)) in zip(axes[:, 0], numbers.items(), strict=True):
        ax.plot([low, high], [0, 0], color=SAME, lw=2)
        ax.plot(value, 0, "o", color=SAME)
        ax.set_yticks([0], [name])
        ax.grid(axis="y", visible=False)
        ax.spines["left"].set_visible(False)
    return made


def _is_number(values: xr.DataArray) -> bool:
    return values.dtype.kind in "fiub"


def _is_end(known: Iterable[Any], name: str) -> bool:
    return any(name in interval_names(str(other))[1:] for other in known)


def _entries(table: pd.DataFrame, dims: list[str]) -> list[str]:
    """What each line or row is of, in words: names as they are, numbers after their dimension."""
    return [
        ", ".join(str(row[dim]) if isinstance(row[dim], str) else f"{dim} {row[dim]:.3g}" for dim in dims)
        for row in table.to_dict("records")
    ]


def _lines(ax: Axes, table: pd.DataFrame, along: str) -> list[tuple[float, str, str]]:
    """Lines with bands, and their right ends as `label_lines` takes them; more than `MOST_NAMED` in one colour, without bands and names."""
    if table["entry"].nunique() > MOST_NAMED:
        import seaborn as sns  # here, since it imports pyplot

        sns.lineplot(table, x=along, y="value", units="entry", estimator=None, color=SAME, alpha=0.3, lw=0.8, ax=ax)
        return []
    ends = []
    for i, (name, line) in enumerate(table.groupby("entry", sort=False)):
        line, colour = line.sort_values(along, ascending=along != "t"), SERIES[i % len(SERIES)]
        if "low" in line and "high" in line:
            ax.fill_between(line[along], line["low"], line["high"], color=colour, alpha=0.18, lw=0)
        ax.plot(line[along], line["value"], color=colour, ls=DASHES[i % len(DASHES)])
        ends.append((float(line["value"].iloc[-1]), str(name), colour))
    ax.margins(x=0)
    return ends if len(ends) > 1 else []


def _cells(table: pd.DataFrame, dims: list[str], label: str) -> Figure:
    """A table of colours, the numbers written where there is room for them."""
    import seaborn as sns

    wide = table.pivot(index=dims[0], columns=dims[1], values="value").astype(float)
    wide = wide.loc[list(dict.fromkeys(table[dims[0]])), list(dict.fromkeys(table[dims[1]]))]
    rows, columns = wide.shape
    made, axes = new_figure(min(2.4 + 0.62 * columns, 12), min(1.4 + 0.36 * rows, 10))
    room = max(rows, columns) <= MOST_LISTED
    bar = {"label": label}
    sns.heatmap(wide, annot=room, fmt=".2g", cmap="Blues", linewidths=1, linecolor="none", cbar_kws=bar, ax=axes[0, 0])
    known = axes[0, 0].collections[0].get_facecolors()[np.isfinite(wide.to_numpy()).ravel()]
    for text, colour in zip(axes[0, 0].texts, known, strict=room):
        text.set_color(ink_on(tuple(colour)))
    axes[0, 0].tick_params(length=0)
    axes[0, 0].grid(visible=False)
    return made


def _rows(table: pd.DataFrame, label: str) -> Figure:
    """A row an entry, with its interval; of more than `MOST_ROWS` how the values are distributed."""
    if len(table) > MOST_ROWS:
        import seaborn as sns

        made, axes = new_figure(7.2, 3.0)
        sns.histplot(table, x="value", stat="percent", color=SAME, element="step", ax=axes[0, 0])
        axes[0, 0].set(xlabel=label, ylabel="share (%)")
        return made
    made, axes = new_figure(7.2, 0.7 + 0.24 * len(table))
    ax = axes[0, 0]
    for y, row in enumerate(table.to_dict("records")):
        ax.plot([row.get("low", math.nan), row.get("high", math.nan)], [y, y], color=SAME, lw=1.8)
        ax.plot(row["value"], y, "o", color=SAME, ms=5)
    ax.set_yticks(range(len(table)), list(table["entry"]))
    ax.set_ylim(len(table) - 0.5, -0.5)
    if table["value"].min() <= 0 <= table["value"].max():
        ax.axvline(0, color=MUTED, lw=0.8)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(label)
    return made
