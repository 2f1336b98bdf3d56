"""Numbers of many kinds on one axis: each over what it is for a yardstick, a lane for everybody."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from consistency_lab.intervals import interval_of
from consistency_lab.paper.plots.studies import COLOURS, MARKS, plain_ticks
from consistency_lab.plots.theme import GRID, INK, MUTED, legend_beside, new_figure, themed

_LANE = 0.105  # inches between two of a number


def over_yardstick(table: pd.DataFrame, columns: Mapping[str, str], yardstick: str) -> pd.DataFrame:
    """Columns name, group, quantity (the label), value, low, high: each number over its median of the group ``yardstick``.

    Args:
        table: ``name, group`` and the ``columns`` (-> their labels) with ``_low`` and ``_high``. Numbers whose median is not above 0 are
            left out: nothing can be said in multiples of it.
    """
    parts = []
    for column, label in columns.items():
        unit = float(table.loc[table["group"] == yardstick, column].median())
        if np.isfinite(unit) and unit > 0:
            value, low, high = (end / unit for end in interval_of(table, column))
            facts = {
                "name": table["name"],
                "group": table["group"],
                "quantity": label,
                "value": value,
                "low": low,
                "high": high,
            }
            parts.append(pd.DataFrame(facts))
    columns_of = ["name", "group", "quantity", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns_of)


@themed
def dots(table: pd.DataFrame, xlabel: str) -> Figure:
    """The frame of `over_yardstick`: a band a number, in it a lane a name, on one logarithmic axis with 95 % intervals.

    An interval that goes on beyond the axis, and a value at or below 0, end in an arrow at its left end.
    """
    numbers, names = (list(dict.fromkeys(table[column])) for column in ("quantity", "name"))
    groups = list(dict.fromkeys(table["group"]))
    group_of = dict(zip(table["name"], table["group"], strict=True))
    figure, axes = new_figure(8.4, 0.9 + len(numbers) * (_LANE * len(names) + 0.12))
    ax = axes[0, 0]
    ax.set_xscale("log")
    known = table["value"].to_numpy(dtype=float)
    known = known[np.isfinite(known) & (known > 0)]
    left, right = (float(known.min()) / 3, float(known.max()) * 3) if len(known) else (0.1, 10.0)
    ax.set_xlim(left, right)
    looks = {}
    for name in names:
        g = groups.index(group_of[name])
        within = [other for other in names if group_of[other] == group_of[name]].index(name)
        looks[name] = (COLOURS[g % len(COLOURS)], MARKS[within % len(MARKS)])
        ax.plot([], [], MARKS[within % len(MARKS)], color=looks[name][0], ms=4.5, label=f"{name} ({group_of[name]})")
    for band, number in enumerate(numbers):
        own = table[table["quantity"] == number].set_index("name")
        for lane, name in enumerate(names):
            if name not in own.index or not np.isfinite(own.loc[name, "value"]):
                continue
            value, low, high = (float(own.loc[name, end]) for end in ("value", "low", "high"))
            y = band + 0.86 * ((lane + 0.5) / len(names) - 0.5)
            colour, mark = looks[name]
            if np.isfinite([low, high]).all() and high > left:
                ax.plot([max(low, left), min(high, right)], [y, y], color=colour, lw=1.4, solid_capstyle="butt")
            if low <= left or value <= 0:
                ax.plot([left], [y], "<", color=colour, ms=3.5, clip_on=False, zorder=4)
            if value > 0:
                ax.plot([value], [y], mark, color=colour, ms=4.5, zorder=3)
    for edge in range(1, len(numbers)):
        ax.axhline(edge - 0.5, color=GRID, lw=0.8)
    ax.axvline(1.0, color=MUTED, lw=1)
    ax.set_yticks(range(len(numbers)), numbers)
    ax.set_ylim(len(numbers) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(xlabel)
    plain_ticks(ax.xaxis)
    legend_beside(ax)
    return figure
