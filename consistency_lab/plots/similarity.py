"""Figures of a comparison: scores, K x K heatmap, curves over t, distribution over samples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from consistency_lab.intervals import Interval, interval_of
from consistency_lab.plots import frames, reading
from consistency_lab.plots.cells import WIDE, cell, empty_cell, named
from consistency_lab.plots.look import current
from consistency_lab.plots.theme import (
    CEILING,
    INK,
    MUTED,
    NULL,
    REFERENCE,
    SAME,
    label_lines,
    new_figure,
    note,
    themed,
    time_axis,
)
from consistency_lab.similarity.named import shared_word
from consistency_lab.similarity.quantities import higher_is_alike, is_scored

GROUP_COLOURS = {
    "family": SAME, "robust": SAME, "plain": SAME, "pair": SAME, "null": NULL, "ceiling": CEILING, "reference": REFERENCE
}  # fmt: skip
GROUP_MARKS = {"family": "D", "robust": "d", "plain": "v", "pair": "o", "null": "X", "ceiling": "^", "reference": "s"}
DOTS = {"Gaussian denoiser": (0, (4, 1.5)), "optimal denoiser": (0, (1.2, 1.2)), "data mean": (0, (5, 1.5, 1, 1.5))}
_FLAT = 0.7  # height of a cell over its width
_BLUES = LinearSegmentedColormap.from_list("alike", ["#f3f6f9", "#a9cde6", "#3f8fc4", "#0a4a7c"])


@themed
def scores(ds: xr.Dataset, metric: str, narrow: bool = False) -> Figure:
    """The score of the family, each pair, the ceiling and the references on one axis, with 95 % intervals.

    ``narrow``: for a narrow window, with each name above its line.
    """
    ds = reading.need(ds, "comparison")
    table = frames.overview(ds, metric)
    if len(ds["pair"]) == 1:
        table = table[table["group"] != "family"]
    value = "score" if is_scored(ds, metric) else "distance"
    # What summarises comes first, then the pairs, most alike first; the axis counts upwards.
    is_pair = table["group"] == "pair"
    table = pd.concat([table[~is_pair], table[is_pair].sort_values(value, ascending=False)])
    table = table.iloc[::-1].reset_index(drop=True)
    figure, axes = new_figure(3.5, 0.7 + 0.4 * len(table)) if narrow else new_figure(7.2, 0.7 + 0.24 * len(table))
    ax = axes[0, 0]
    drawn = table[value].to_numpy(dtype=float)
    for y, row in enumerate(table.to_dict("records")):
        colour, mark, strong = GROUP_COLOURS[row["group"]], GROUP_MARKS[row["group"]], row["group"] != "pair"
        if not np.isfinite(row[value]):
            across = ax.get_yaxis_transform()
            ax.text(0.02, y, "undefined", style="italic", color=MUTED, va="center", transform=across)
            continue
        _, *ends = interval_of(row, value)
        ax.plot(ends, [y, y], color=colour, lw=2.4 if strong else 1.6, zorder=2)
        filled, size = (colour, 6.5) if strong else ("none", 5.0)
        ax.plot(row[value], y, mark, color=colour, ms=size, mfc=filled, zorder=3)
    names = list(table["name"])
    ax.set_yticks(range(len(table)), [""] * len(table) if narrow else names)
    ax.set_ylim(-0.7, len(table) - (0.1 if narrow else 0.3))
    for y, name in enumerate(names if narrow else []):
        ax.text(0.0, y + 0.24, name, color=INK, fontsize=8, va="bottom", transform=ax.get_yaxis_transform())
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    if value == "score":
        gap = "\n" if narrow else "  "
        ax.axvline(0, color=NULL, lw=1)
        ax.axvline(1, color=MUTED, lw=1, ls=(0, (2, 2)))
        lows = interval_of(table, "score").low
        ax.set_xlim(min(-0.04, np.nanmin(np.append(lows, drawn), initial=0.0) - 0.03), 1.03)
        ax.set_xlabel(f"consistency score, {metric}{gap}(0 = other {shared_word(ds)}, 1 = same image)")
    else:
        ax.set_xlabel(reading.quantity(ds, metric))
    return figure


@themed
def heatmap(ds: xr.Dataset, metric: str) -> Figure:
    """Each model with each model and, apart, with each reference: the score, or the mean of a metric without scores."""
    ds = reading.need(ds, "comparison")
    table, *bounds = (frames.matrix(ds, metric, part) for part in frames.PARTS)
    found = Interval(*(each.to_numpy(dtype=float) for each in (table, *bounds)))
    models = list(table.index)
    references = [name for name in table.columns if name not in models]
    scored = is_scored(ds, metric)
    places = [i + (0.35 if i >= len(models) else 0.0) for i in range(table.shape[1])]
    # Scores have two digits or more before their interval's ends; means of other metrics may have more.
    digits = _digits(found) if scored else 1
    side = (WIDE if table.shape[1] <= 8 else 0.8) + 0.12 * max(digits - 2, 0)
    # Room for the names, in inches: a letter is 0.08 wide, and those below are tilted by 38 degrees.
    beside, below = 0.5 + 0.08 * max(map(len, models)), 0.35 + 0.055 * max(map(len, table.columns))
    width, height = beside + side * (places[-1] + 1), 0.65 + _FLAT * side * len(models) + below
    figure, axes = new_figure(max(5.0, width), height)
    ax = axes[0, 0]
    finite = found.estimate[np.isfinite(found.estimate)]
    norm = Normalize(0.0, 1.0) if scored else Normalize(*((finite.min(), finite.max()) if len(finite) else (0, 1)))
    for (i, j), value in np.ndenumerate(found.estimate):
        if np.isfinite(value):
            one = Interval(*(part[i, j] for part in found))
            cell(ax, places[j], i, one, _BLUES(float(np.clip(norm(value), 0, 1))), digits=digits)
        elif i == j:
            empty_cell(ax, places[j], i, "·", hatch="", size=9)
        else:
            empty_cell(ax, places[j], i)
    named(ax, places, models + references, models)
    if not current().paper:  # in a paper cells have the room that there is
        ax.set_aspect(_FLAT)
    what = "consistency score at t = 0 (no unit)" if scored else "mean at t = 0"
    ax.set_title(f"{what}\n{metric if scored else reading.quantity(ds, metric)}")
    return figure


def _digits(scores: Interval, most: int = 4) -> int:
    """The fewest decimals, two or more, with which no score and no end below one reads as one."""
    values = np.concatenate([part.ravel() for part in scores])
    below = values[np.isfinite(values) & (values < 1)]
    return next((digits for digits in range(2, most) if not (below.round(digits) == 1).any()), most)


@themed
def curves(ds: xr.Dataset, metric: str) -> Figure:
    """Along t: the score of x0 estimates (upper), the distance under the same and under other noise (lower)."""
    ds = reading.need(ds, "comparison", "log_snr")
    table = frames.curves(ds, metric)
    t, log_snr = ds["t"].values, ds["log_snr"].values
    scored = is_scored(ds, metric)
    figure, axes = new_figure(7.2, 5.6 if scored else 3.4, 2 if scored else 1, 1, sharex=True)
    if scored:
        _score_curves(
            axes[0, 0], table[table["quantity"] == "score"], len(ds["pair"]), reading.why_undefined(ds, metric)
        )
        time_axis(axes[0, 0], t, log_snr)
        axes[0, 0].set_xlabel("")
        _label_last(axes[0, 0])
    ax = axes[-1, 0]
    part = table[table["quantity"] == "distance"]
    for (group, name), line in part.groupby(["group", "name"], sort=False):
        colour = GROUP_COLOURS[str(group)]
        style = {"null": (0, (6, 2)), "reference": DOTS.get(str(name), ":")}.get(str(group), "-")
        ax.fill_between(line["t"], line["low"], line["high"], color=colour, alpha=0.18, lw=0)
        ax.plot(
            line["t"], line["value"], color=colour, ls=style, lw=2 if group != "reference" else 1.3, label=str(name)
        )
    ax.set_ylabel(reading.quantity(ds, metric).replace(" (", "\n(", 1))
    time_axis(ax, t, None if scored else log_snr)
    # Distances between x0 estimates fall by orders of magnitude from noise to data.
    if not higher_is_alike(ds, metric) and (part["value"] > 0).any():
        ax.set_yscale("log", nonpositive="mask")
    _label_last(ax)
    return figure


def _score_curves(ax: Axes, table: pd.DataFrame, pairs: int, reason: str) -> None:
    defined = table.groupby(["group", "name"], sort=False)["value"].transform(lambda values: values.notna().any())
    table = table[defined]
    if table.empty:
        note(ax, f"undefined: {reason}")
        return
    for (group, name), line in table.groupby(["group", "name"], sort=False):
        if group == "pair":
            ax.plot(
                line["t"], line["value"], color=MUTED, lw=0.8, alpha=0.75, label="_pair" if pairs > 1 else str(name)
            )
        elif group == "reference":
            ax.fill_between(line["t"], line["low"], line["high"], color=REFERENCE, alpha=0.1, lw=0)
            ax.plot(line["t"], line["value"], color=REFERENCE, lw=1.3, ls=DOTS.get(str(name), ":"), label=str(name))
        else:
            ax.fill_between(line["t"], line["low"], line["high"], color=SAME, alpha=0.18, lw=0)
            ax.plot(line["t"], line["value"], color=SAME, lw=2.2, label=str(name))
    ax.axhline(0, color=NULL, lw=1.2, ls=(0, (6, 2)), label="other noise (null)")
    ax.set_ylabel("consistency score\n(no unit)")
    ax.set_ylim(min(-0.05, float(np.nanmin(table["value"])) - 0.05), 1.03)


def _label_last(ax: Axes) -> None:
    """Names at the right ends of the lines (the data end of the time axis)."""
    ends = []
    for line in ax.get_lines():
        name = str(line.get_label())
        if not name.startswith("_"):
            ends.append((float(np.asarray(line.get_ydata())[-1]), name, str(line.get_color())))
    label_lines(ax, ends)


def _edges(values: np.ndarray, logarithmic: bool) -> np.ndarray:
    """41 edges of bins that hold all the values, evenly spaced, or evenly spaced in the logarithm: zeros then fall into the first."""
    if logarithmic:
        positive = values[values > 0]
        low, high = max(positive.min(), positive.max() * 1e-6), positive.max()
        return np.geomspace(0.99 * low, 1.01 * high, 41)
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    return np.linspace(low, high + 1e-9, 41)


@themed
def distribution(ds: xr.Dataset, metric: str) -> Figure:
    """Per-sample values at t = 0, same noise against other noise: all of them (upper), quantiles by pair (lower)."""
    ds = reading.need(ds, "comparison")
    table = frames.distribution(ds, metric)
    pairs = reading.names(ds, "pair")
    height = 0.3 + 0.24 * len(pairs)
    figure, axes = new_figure(7.2, 2.5 + height + 0.4, 2, 1, sharex=True, height_ratios=[2.2, height])
    same = table[[f"same: {pair}" for pair in pairs]].to_numpy(dtype=float)
    null = table[[f"null: {pair}" for pair in pairs]].to_numpy(dtype=float)
    both = np.concatenate([same.ravel(), null.ravel()])
    both = both[np.isfinite(both)]
    upper, lower = axes[0, 0], axes[1, 0]
    edges = _edges(both, logarithmic := not higher_is_alike(ds, metric) and bool((both > 0).any()))
    if logarithmic:
        upper.set_xscale("log")  # distances have long tails
        same, null = (values.clip(edges[0], edges[-1]) for values in (same, null))
    for values, colour, name, style in (
        (same, SAME, f"same {shared_word(ds)}", "-"),
        (null, NULL, f"other {shared_word(ds)} (null)", (0, (6, 2))),
    ):
        share, _ = np.histogram(values.ravel(), edges)
        share = 100 * share / max(values.size, 1)
        upper.stairs(share, edges, fill=True, color=colour, alpha=0.18)
        upper.stairs(share, edges, color=colour, lw=1.6, ls=style, label=name)
        top = int(np.argmax(share))
        at = (edges[top] + edges[top + 1]) / 2
        upper.annotate(
            name, (at, share[top]), (5, 4), textcoords="offset points", color=colour, fontsize=8.5, va="bottom"
        )
    upper.margins(y=0.16)
    upper.set_ylabel("share of samples\nand pairs (%)")
    for y, i in enumerate(reversed(range(len(pairs)))):
        for values, colour, mark, shift in ((same[:, i], SAME, "o", 0.13), (null[:, i], NULL, "X", -0.13)):
            if np.isnan(values).all():  # equal images have no PSNR
                at = {"transform": lower.get_yaxis_transform(), "va": "center", "fontsize": 7}
                lower.text(0.02, y + 1.6 * shift, "undefined", style="italic", color=MUTED, **at)
                continue
            low, mid_low, middle, mid_high, high = np.nanquantile(values, [0.025, 0.25, 0.5, 0.75, 0.975])
            lower.plot([low, high], [y + shift] * 2, color=colour, lw=1)
            lower.plot([mid_low, mid_high], [y + shift] * 2, color=colour, lw=3)
            lower.plot(middle, y + shift, mark, color=colour, ms=4.5)
    lower.set_yticks(range(len(pairs)), pairs[::-1])
    lower.set_ylim(-0.6, len(pairs) - 0.4)
    lower.tick_params(axis="y", length=0)
    lower.grid(axis="y", visible=False)
    lower.set_xlabel(reading.quantity(ds, metric))
    return figure
