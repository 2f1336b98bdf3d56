"""Lines with their intervals: what the figures of scores along an axis share."""

from __future__ import annotations

import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from consistency_lab.plots import generic
from consistency_lab.plots.theme import DASHES, SERIES, label_lines

Line = tuple[str, str, object]  # name, colour, dashes


def long_frame(ds: xr.Dataset, variable: str, /, **columns: str) -> pd.DataFrame:
    """A variable as rows: its dimensions, ``value``, ``low``, ``high`` (NaN without an interval), and constant columns before them."""
    return generic.frame(ds, variable).assign(**columns)


def styles(names: list[str]) -> list[Line]:
    """A colour and dashes for each name."""
    return [(name, SERIES[i % len(SERIES)], DASHES[i % len(DASHES)]) for i, name in enumerate(names)]


def draw_lines(ax: Axes, table: pd.DataFrame, along: str, by: str, lines: list[Line], labels: bool = True) -> None:
    """A line with its band for each entry of ``by``; named at the right end, the smallest value of t, the largest of anything else."""
    ends = []
    for name, colour, dashes in lines:
        line = table[table[by] == name].sort_values(along)
        if line["low"].notna().any():
            ax.fill_between(line[along], line["low"], line["high"], color=colour, alpha=0.18, lw=0)
        ax.plot(line[along], line["value"], color=colour, ls=dashes, marker="o", ms=2.5)
        ends.append((float(line["value"].iloc[0 if along == "t" else -1]), name, colour))
    if labels:
        label_lines(ax, ends, size=7.5)
