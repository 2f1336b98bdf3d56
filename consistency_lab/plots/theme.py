"""What every figure shares: its sizes in its look, labels at the lines, one direction of time.

Figures are `consistency_lab.plots.look.StyledFigure` objects made here; pyplot and its global state are never touched.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogFormatterMathtext

from consistency_lab.plots.colours import (
    CEILING,
    DASHES,
    GRID,
    INK,
    LEVELS,
    MUTED,
    NULL,
    ON_DARK,
    ON_LIGHT,
    PALETTE,
    REFERENCE,
    SAME,
    SERIES,
    Colour,
    contrast,
    ink_on,
    luminance,
)
from consistency_lab.plots.drawable import drawable
from consistency_lab.plots.fitting import BELOW, balanced, finish
from consistency_lab.plots.look import PANEL, SHRINK, STYLE, StyledFigure, blank_figure, current, look

__all__ = [
    "CEILING",
    "DASHES",
    "GRID",
    "INK",
    "LEVELS",
    "MUTED",
    "NULL",
    "ON_DARK",
    "ON_LIGHT",
    "PALETTE",
    "REFERENCE",
    "SAME",
    "SERIES",
    "STYLE",
    "Colour",
    "blank_figure",
    "contrast",
    "ink_on",
    "label_lines",
    "legend_beside",
    "luminance",
    "new_figure",
    "note",
    "spread",
    "themed",
    "time_axis",
]
_NAMES = 16  # letters of a name beside the axes of a narrow figure
_LOOK = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
    for name, annotation in (
        ("style", "str | None"),
        ("width", "str | float | None"),
        ("palette", "str | Sequence[Colour] | None"),
    )
]


def themed(plot: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a plot function in its look, on what a figure has a place for (`drawable`); the caller's settings of matplotlib stay.

    The function gets the keywords ``style``, ``width`` and ``palette`` of `consistency_lab.plots.look.look`.
    """

    @functools.wraps(plot)
    def inside(
        *args: Any,
        style: str | None = None,
        width: str | float | None = None,
        palette: str | Sequence[Colour] | None = None,
        **options: Any,
    ) -> Figure:
        with look(style, width, palette):
            figure = plot(*map(drawable, args), **options)
            for ax in figure.axes:
                for axis in (ax.xaxis, ax.yaxis):
                    for ticker in (axis.major, axis.minor):
                        if isinstance(ticker.formatter, LogFormatterMathtext):
                            ticker.formatter = _Powers(ticker.formatter)
                            ticker.formatter.set_axis(axis)
            if isinstance(figure, StyledFigure):
                finish(figure)
            return figure

    signature = inspect.signature(plot)
    inside.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *_LOOK])  # type: ignore[attr-defined]
    return inside


class _Powers(Formatter):
    """The labels of a logarithmic axis as plain text: matplotlib writes them as mathematics, which `STYLE` turns off for names' sake."""

    def __init__(self, inner: Formatter):
        self.inner = inner

    def __call__(self, x: float, pos: int | None = None) -> str:
        text = self.inner(x, pos).replace("$", "").replace(r"\mathdefault", "").replace(r"\times", "×")
        raised = re.sub(r"\^\{([^}]*)\}", lambda found: found[1].translate(_RAISED), text)
        return raised.replace("{", "").replace("}", "").replace("-", "−")

    def set_locs(self, locs: Any) -> None:
        self.inner.set_locs(locs)

    def set_axis(self, axis: Any) -> None:
        self.axis = axis
        self.inner.set_axis(axis)


_RAISED = str.maketrans("0123456789-−.", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻·")


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, fold: bool = True, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of ``width`` x ``height`` inches and its axes (rows, columns); options go to `Figure.subplots`.

    In a paper it is as wide as the look says; panels that have no room there beside each other go below, unless ``fold`` is false. The
    axes are given as if they did not.
    """
    own = current()
    across = max(1, int(own.width / PANEL)) if own.paper and fold else columns
    if across >= columns:
        figure: Figure = blank_figure(width, height)
        return figure, figure.subplots(rows, columns, squeeze=False, **options)
    lines = -(-columns // across)
    across = -(-columns // lines)
    options.pop("width_ratios", None)
    if "height_ratios" in options:
        options["height_ratios"] = np.repeat(options["height_ratios"], lines)
    figure = blank_figure(width, height * lines)
    axes = figure.subplots(rows * lines, across, squeeze=False, **options)
    folded = axes.reshape(rows, lines * across)
    for ax in folded[:, columns:].ravel():
        ax.remove()
    for ax in folded[-1, columns - across : columns]:
        ax.tick_params(labelbottom=True)  # those with nothing below
    return figure, folded[:, :columns]


def time_axis(ax: Axes, t: np.ndarray, log_snr: np.ndarray | None = None, labels: bool = True) -> None:
    """Noise at the left, data at the right: the order of sampling, in which log-SNR grows. log-SNR is marked above.

    Args:
        t: (T,) times in [0, 1] that are drawn. log_snr: (T,) natural log of alpha^2/sigma^2, infinite at t = 0.
        labels: write the names of the axes (off for all but the outer panels).
    """
    if np.ptp(t) > 0:
        ax.set_xlim(float(np.max(t)), float(np.min(t)))
    else:  # one time: a line of one point is not seen
        for line in ax.get_lines():
            line.set_marker("o" if np.size(line.get_xdata()) == 1 else "")
    ax.set_xlabel("time t  (1 = noise, 0 = data)" if labels else "")
    if log_snr is None:
        return
    good = np.isfinite(log_snr)
    if good.sum() < 2:
        return
    order = np.argsort(log_snr[good])
    known, times = log_snr[good][order], t[good][order]
    marks = [mark for mark in range(-16, 17, 2) if known[0] <= mark <= known[-1]]
    # A mark is up to a quarter of an inch wide; the layout, which comes later, leaves an axis about as wide as it is now.
    gap = max(0.07, 0.28 / _width(ax)) * float(np.ptp(t))
    kept: list[tuple[float, int]] = []
    for mark in marks:
        at = float(np.interp(mark, known, times))
        if all(abs(at - other) >= gap for other, _ in kept):
            kept.append((at, mark))
    top = ax.secondary_xaxis("top")
    top.set_ticks([at for at, _ in kept], labels=[f"{mark:+d}".replace("-", "−") if mark else "0" for _, mark in kept])
    top.tick_params(labelsize=7.5, length=2.5, labelcolor=MUTED)
    top.spines["top"].set_visible(False)
    if labels:
        top.set_xlabel("log-SNR = ln(α²/σ²)", fontsize=7.5, color=MUTED)


def _width(ax: Axes) -> float:
    """Inches from the left to the right end of the axes, before the layout."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return max(float(ax.get_position().width * figure.get_size_inches()[0]), 0.1)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights (fractions of an axis) as little as needed so that neighbours are ``gap`` apart, order kept."""
    order = np.argsort(heights, kind="stable")
    placed = np.asarray(heights, dtype=float)[order]
    for _ in range(200):
        overlap = gap - np.diff(placed)
        if not (overlap > 1e-6).any():
            break
        for i in np.flatnonzero(overlap > 1e-6):
            middle = (placed[i] + placed[i + 1]) / 2
            placed[i], placed[i + 1] = middle - gap / 2, middle + gap / 2
    # Into the axis from both ends, as far as they fit: no label is moved that has room where it is.
    room = gap * np.arange(len(placed))
    placed = np.maximum(np.minimum(placed, 1.0 - room[::-1]), room if len(placed) and room[-1] <= 1 else -np.inf)
    result = np.empty(len(placed))
    result[order] = placed
    return result.tolist()


def label_lines(ax: Axes, ends: Sequence[tuple[float, str, str]], size: float = 8.0) -> None:
    """Write names right of the axes at the height where their lines end: (y in data units, text, colour).

    Call it last: it reads the limits and the scale of the axis. Lines that end outside are labelled at the edge.
    """
    if not ends:
        return
    to_fraction = ax.transData + ax.transAxes.inverted()
    low, high = ax.get_ylim()
    middle = ax.get_xlim()[1]
    heights = []
    for y, _, _ in ends:
        inside = float(np.clip(y, min(low, high), max(low, high))) if np.isfinite(y) else low
        heights.append(float(to_fraction.transform((middle, inside))[1]))
    box = ax.get_position()
    figure = ax.get_figure(root=True)
    assert figure is not None
    names = [balanced(text, _NAMES) if current().narrow else text for _, text, _ in ends]
    lines = max(name.count("\n") + 1 for name in names)
    gap = size * (0.2 + 1.05 * lines) / 72 / max(box.height * figure.get_size_inches()[1] * 0.85, 0.1)
    gap *= SHRINK if current().paper else 1
    if current().narrow and gap * len(ends) > 1:  # no room for all of them: lines that have a label go into a legend
        handles, labels = ax.get_legend_handles_labels()
        if handles and not figure.legends:
            legend_beside(ax)
        kept = [i for i, (_, text, _) in enumerate(ends) if text not in labels]
        ends, names = [ends[i] for i in kept], [names[i] for i in kept]
        heights = [heights[i] for i in kept]
    for name, (_, _, colour), height in zip(names, ends, spread(heights, gap), strict=True):
        ax.text(1.012, height, name, color=colour, fontsize=size, va="center", ha="left", transform=ax.transAxes)


def legend_beside(ax: Axes, **options: Any) -> None:
    """The legend right of the axes, or below them where a figure has no room at the side."""
    if current().narrow:
        figure = ax.get_figure(root=True)
        assert isinstance(figure, Figure)
        made = figure.legend(
            *ax.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower left", **options
        )
        made.set_gid(BELOW)
    else:
        ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), **options)


def note(ax: Axes, text: str) -> None:
    """Say in the middle of empty axes why nothing is drawn."""
    ax.text(0.5, 0.5, text, color=MUTED, ha="center", va="center", transform=ax.transAxes, wrap=True, style="italic")
