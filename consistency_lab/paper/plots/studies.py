"""Figures of studies: forests of estimates, curves, and one estimate against another. Each draws a frame and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from consistency_lab.intervals import interval_names, interval_of
from consistency_lab.plots.fitting import balanced
from consistency_lab.plots.look import current
from consistency_lab.plots.theme import (
    DASHES,
    INK,
    MUTED,
    NULL,
    SERIES,
    label_lines,
    legend_beside,
    new_figure,
    note,
    themed,
    time_axis,
)

# The null keeps its colour to itself.
COLOURS = tuple(colour for colour in SERIES if colour != NULL)
NAMES, NAMES_OF_TWO = 26, 21  # letters of a line of a name beside one panel of a narrow figure, and beside two
MARKS = ("o", "s", "^", "D", "v", "P", "X", "h")


@dataclass(frozen=True)
class Panel:
    """One axis of a forest.

    Attributes:
        value: the column that is drawn, with its interval beside it.
        label: of the axis, with the unit.
        title: above the panel.
        lines: named values to compare with.
        log: a logarithmic axis; values at or below 0 have no place on it and are written as text, and an interval that goes on to there
            ends in an arrow at the edge.
        limits: of the axis; from the data by default. A value beyond them is written at the edge.
    """

    value: str
    label: str
    title: str = ""
    lines: Mapping[str, float] = field(default_factory=dict)
    log: bool = False
    limits: tuple[float, float] | None = None


@themed
def forest(table: pd.DataFrame, panels: Sequence[Panel], groups: Sequence[str] = ()) -> Figure:
    """A row a line, a panel a number, with 95 % intervals. Groups have a heading, a colour and a mark.

    Args:
        table: ``name``, the panels' columns, and if there are such columns ``group`` and ``fit``: where it is False the mark is hollow and
            the name says so.
        panels: side by side, on one order of rows.
        groups: all of a table of several pages, each of which keeps its colour and mark; those of this table by default.
    """
    groups = list(groups or (dict.fromkeys(table["group"]) if "group" in table else [""]))
    narrow, places = current().narrow, list[float]()
    labels: list[tuple[float, str, str, bool]] = []
    colours: list[int] = []
    y = 0.0
    for g, group in enumerate(groups):
        if "group" in table and group not in set(table["group"]):
            continue
        if group:
            labels.append((y, str(group), COLOURS[g % len(COLOURS)], True))
            y += 1
        for row in (table[table["group"] == group] if "group" in table else table).to_dict("records"):
            name = f"{row['name']}{' (unfit)' if row.get('fit') is False else ''}"
            if narrow:
                name = balanced(name, NAMES if len(panels) == 1 else NAMES_OF_TWO)
            high = 0.35 * name.count("\n")  # half of what further lines need
            y += high
            labels.append((y, name, INK, False))
            places.append(y)
            colours.append(g)
            y += 1 + high
        y += 0.35
    order = pd.concat([table[table["group"] == group] for group in groups]) if "group" in table else table
    shares = [2.0 if i == 0 and len(panels) == 2 and not narrow else 1.0 for i in range(len(panels))]
    width = (
        0.8 + 0.066 * max(len(text) for _, text, *_ in labels) + {1: 4.6, 2: 5.6}.get(len(panels), 2.2 * len(panels))
    )
    above = max(len(panel.lines) for panel in panels)
    few = len(panels) < 3
    figure, axes = new_figure(width, 0.85 + 0.22 * y, 1, len(panels), fold=not few, sharey=True, width_ratios=shares)
    for ax, panel in zip(axes[0], panels, strict=True):
        _panel(ax, order, panel, places, colours, above)
    axes[0, 0].set_ylim(y - 0.6, -0.8)
    axes[0, 0].set_yticks([place for place, *_ in labels], [text for _, text, *_ in labels])
    for ax in axes[0]:
        for tick, (_, _, colour, heading) in zip(ax.yaxis.get_major_ticks(len(labels)), labels, strict=True):
            tick.label1.set(color=colour, fontweight="bold" if heading else "normal")
    return figure


def plain_ticks(axis: Axis) -> None:
    """Few numbers written out on a logarithmic axis, between the powers of ten as far as it spans little."""
    low, high = sorted(axis.get_view_interval())
    steps = {5: (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), 30: (1.0, 2.0, 5.0), 300: (1.0, 3.0)}
    subs = next((steps[most] for most in steps if high < most * low), (1.0,))
    axis.set_major_locator(LogLocator(subs=subs, numticks=8 if len(subs) > 1 else 4))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _panel(
    ax: Axes, table: pd.DataFrame, panel: Panel, places: Sequence[float], colours: Sequence[int], above: int
) -> None:
    columns = interval_names(panel.value)
    drawn = table.reindex(columns=columns).to_numpy(dtype=float)
    fit = [each is not False for each in table["fit"]] if "fit" in table else [True] * len(table)
    if panel.log:
        ax.set_xscale("log")
    known = np.append(drawn[np.isfinite(drawn)], [x for x in panel.lines.values() if np.isfinite(x)])
    known = known[known > 0] if panel.log else known
    if panel.limits is not None:
        ax.set_xlim(*panel.limits)
    elif len(known):
        low, high = float(known.min()), float(known.max())
        margin = 0.06 * (high - low) or 0.05
        ax.set_xlim(*((low / 1.4, high * 1.4) if panel.log else (low - margin, high + margin)))
    left, right = ax.get_xlim()
    middle = (left * right) ** 0.5 if panel.log else (left + right) / 2
    some = bool(np.isfinite(drawn[:, 1:]).all(axis=1).any())
    for (value, low, high), y, colour, well in zip(drawn, places, colours, fit, strict=True):
        ink = COLOURS[colour % len(COLOURS)]
        if not np.isfinite(value):
            continue
        if panel.log and value <= 0:
            ax.text(left, y, f" {value:.2g}, not above 0", color=ink, va="center", fontsize=7, style="italic")
            continue
        if panel.limits is not None and not min(panel.limits) <= value <= max(panel.limits):
            over = (value > max(panel.limits)) == (right > left)
            text = f"{value:.2g} →" if over else f"← {value:.2g}"
            ax.text(
                right if over else left, y, text, color=ink, va="center", ha="right" if over else "left", fontsize=7
            )
            continue
        if np.isfinite(low) and np.isfinite(high):
            ax.plot([max(low, left) if panel.log else low, high], [y, y], color=ink, lw=1.8, solid_capstyle="butt")
            if panel.log and low < left:
                ax.plot([left], [y], "<", color=ink, ms=3.5, clip_on=False, zorder=4)
        elif some:
            inside = value < middle
            ax.annotate(
                "no interval", (value, y), (6 if inside else -6, 0), textcoords="offset points",
                fontsize=6.5, color=MUTED, va="center", ha="left" if inside else "right",
            )  # fmt: skip
        ax.plot([value], [y], MARKS[colour % len(MARKS)], color=ink, ms=5, mfc=ink if well else "white", zorder=3)
    for i, (name, x) in enumerate(panel.lines.items()):
        if np.isfinite(x):
            ax.axvline(x, color=NULL if x == 0 else MUTED, lw=1, ls="-" if x == 0 else DASHES[1 + i % 3], zorder=1)
            ax.annotate(
                name, (x, 1.0), (0, 1 + 8 * i), xycoords=("data", "axes fraction"),
                textcoords="offset points", fontsize=6.5, color=MUTED, ha="center", va="bottom",
            )  # fmt: skip
    ax.set_xlabel(
        panel.label if some or not np.isfinite(drawn[:, 0]).any() else f"{panel.label}\n- no intervals known -"
    )
    ax.set_title(panel.title, pad=4 + 9 * above)
    if panel.log:
        plain_ticks(ax.xaxis)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)


@themed
def curves(
    table: pd.DataFrame,
    x: str,
    xlabel: str,
    ylabels: Mapping[str, str],
    *,
    lines: Mapping[str, float] | None = None,
    logx: bool = False,
    logy: bool = False,
    ylim: tuple[float, float] | None = None,
    height: float = 2.9,
) -> Figure:
    """Curves with 95 % bands, a panel below the other, named at their ends.

    Args:
        table: ``panel, name``, the column ``x``, ``value, low, high``; with ``x="t"`` the axis runs from noise to data.
        x, xlabel: column and label of the axis.
        ylabels: panel -> label of its axis with the unit; the order of the panels.
        lines: named values to compare with, in every panel.
        logx, logy: logarithmic axes.
        ylim: of every panel; from the data by default.
        height: of a panel, inches.
    """
    longest = max((len(str(name)) for name in table["name"]), default=0)
    figure, axes = new_figure(6.4 + 0.066 * min(longest, 50), height * len(ylabels) + 0.3, len(ylabels), 1, sharex=True)
    known = list(dict.fromkeys(table["name"]))
    for i, (ax, (panel, label)) in enumerate(zip(axes[:, 0], ylabels.items(), strict=True)):
        part, ends = table[table["panel"] == panel], []
        for name, line in part.groupby("name", sort=False):
            n = known.index(name)
            colour = COLOURS[n % len(COLOURS)]
            line = line.sort_values(x, ascending=x != "t")
            look = {"color": colour, "ls": DASHES[n % len(DASHES)], "marker": MARKS[n % len(MARKS)], "ms": 3.2}
            if len(line) > 1:
                ax.fill_between(line[x], line["low"], line["high"], color=colour, alpha=0.16, lw=0)
                ax.plot(line[x], line["value"], label=str(name), **look)
            else:  # a band of one point is not seen
                ends_of = np.abs(line[["low", "high"]].to_numpy() - line[["value"]].to_numpy()).T
                ax.errorbar(line[x], line["value"], ends_of, elinewidth=1.4, label=str(name), **look)
            ends.append((float(line["value"].iloc[-1]), str(name), colour))
        if part.empty:
            note(ax, "no finished rows")
            continue
        for name, height_at in (lines or {}).items():
            ax.axhline(height_at, color=NULL if height_at == 0 else MUTED, lw=1, ls=(0, (6, 2)))
            ends.append((height_at, name, NULL if height_at == 0 else MUTED))
        if logx:
            ax.set_xscale("log")
            ticks = sorted(set(table[x].astype(float)))
            if len(ticks) <= 8:
                ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                ax.set_xticks([], minor=True)
            else:
                plain_ticks(ax.xaxis)
        if logy:
            ax.set_yscale("log")
        if ylim:
            ax.set_ylim(*ylim)
        if logy:
            plain_ticks(ax.yaxis)
        ax.set_ylabel(label)
        last = i == len(ylabels) - 1
        if x == "t":
            log_snr = part.drop_duplicates("t")["log_snr"].to_numpy(dtype=float) if i == 0 else None
            time_axis(ax, part.drop_duplicates("t")["t"].to_numpy(dtype=float), log_snr)
        if not last or x != "t":
            ax.set_xlabel(xlabel if last else "")
        label_lines(ax, ends)
    return figure


@themed
def scatter(table: pd.DataFrame, x: str, y: str, xlabel: str, ylabel: str, logx: bool = False) -> Figure:
    """One estimate against another, each with its 95 % interval: columns ``name``, x and y with their ``_low`` and ``_high``, ``group``.

    On a logarithmic axis an interval that goes on to 0 or below is cut at the edge.
    """
    figure, axes = new_figure(6.8, 3.8)
    ax = axes[0, 0]
    groups = list(dict.fromkeys(table["group"]))
    if logx:
        known = table[interval_names(x)].to_numpy(dtype=float)
        known = known[np.isfinite(known) & (known > 0)]
        ax.set_xscale("log")
        ax.set_xlim(known.min() / 1.3, known.max() * 1.3)
    for row in table.to_dict("records"):
        g = groups.index(row["group"])
        colour = COLOURS[g % len(COLOURS)]
        edge = ax.get_xlim()[0] if logx else -np.inf
        across, along = interval_of(row, x), interval_of(row, y)
        ax.plot([max(across.low, edge), across.high], [row[y]] * 2, color=colour, lw=1.4)
        ax.plot([row[x]] * 2, [along.low, along.high], color=colour, lw=1.4)
        ax.plot([row[x]], [row[y]], MARKS[g % len(MARKS)], color=colour, ms=6)
    for g, group in enumerate(groups):
        ax.plot([], [], MARKS[g % len(MARKS)], color=COLOURS[g % len(COLOURS)], label=str(group))
    legend_beside(ax)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if logx:
        plain_ticks(ax.xaxis)
    _name_points(ax, table, x, y, groups)
    return figure


def _name_points(ax: Axes, table: pd.DataFrame, x: str, y: str, groups: Sequence[str], size: float = 7.5) -> None:
    """Names beside points, each at the first of four corners where it covers no name before it."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the layout must be known
    taken: list[tuple[float, float, float, float]] = []
    for row in table.to_dict("records"):  # what the intervals cover
        across, along = interval_of(row, x), interval_of(row, y)
        for ends in (((across.low, row[y]), (across.high, row[y])), ((row[x], along.low), (row[x], along.high))):
            if np.isfinite(ends).all():
                corners_of = ax.transData.transform(ends)
                taken.append((*corners_of.min(axis=0), *corners_of.max(axis=0)))
    per_point = figure.dpi / 72
    for row in table.to_dict("records"):
        wide, high = 0.62 * size * len(str(row["name"])) * per_point, 1.1 * size * per_point
        left, foot = ax.transData.transform((row[x], row[y]))
        corners = [(5, 4), (5, -4), (-5, 4), (-5, -4), (5, 16), (5, -16)]
        for dx, dy in corners:
            at_x = left + dx * per_point - (wide if dx < 0 else 0)
            at_y = foot + dy * per_point - (high if dy < 0 else 0)
            box = (at_x, at_y, at_x + wide, at_y + high)
            if all(box[0] > o[2] or box[2] < o[0] or box[1] > o[3] or box[3] < o[1] for o in taken):
                break
        taken.append(box)
        ax.annotate(
            str(row["name"]), (row[x], row[y]), (dx, dy), textcoords="offset points", fontsize=size,
            color=COLOURS[groups.index(row["group"]) % len(COLOURS)],
            ha="right" if dx < 0 else "left", va="top" if dy < 0 else "bottom",
        )  # fmt: skip
