"""One look for every figure: colours that a page can exchange for the dark, labels at the lines, one direction of time.

Figures are `matplotlib.figure.Figure` objects made here; pyplot and its global state are never touched.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogFormatterMathtext

from consistency_lab.plots.drawable import drawable

P = ParamSpec("P")
Colour: TypeAlias = str | tuple[float, float, float] | tuple[float, float, float, float]

# name -> (on white, on dark). The page swaps the first for the second, so no first colour may appear twice. Series
# follow Okabe and Ito's colour-blind safe hues, darkened or lightened to the contrast that text needs (4.5 to 1).
PALETTE: dict[str, tuple[str, str]] = {
    "ink": ("#1d2430", "#e8ebf0"),
    "muted": ("#586474", "#a3aebd"),
    "grid": ("#dfe3e8", "#333b47"),
    "same": ("#0068a6", "#56b4e9"),
    "null": ("#c04a00", "#ff9a55"),
    "ceiling": ("#007a5a", "#35c79c"),
    "reference": ("#8d4a86", "#dd9bd6"),
    "series-ochre": ("#8a6100", "#e0b040"),
    "series-teal": ("#20707f", "#74cfdf"),
    "series-rose": ("#b02a56", "#ff8fb0"),
    "series-slate": ("#4a4f9c", "#a8aef0"),
}
INK, MUTED, GRID, SAME, NULL, CEILING, REFERENCE = (light for light, _ in list(PALETTE.values())[:7])
SERIES: tuple[str, ...] = (SAME, NULL, CEILING, REFERENCE, *(light for light, _ in list(PALETTE.values())[7:]))
# A second cue beside colour, in the order of SERIES.
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
# Noise levels in their order, noise first. All can be seen on white and on dark (3 to 1), so that hue alone tells them apart, beside a bar.
LEVELS = LinearSegmentedColormap.from_list("levels", ["#6a5fd0", "#a04fb8", "#cc4f86", "#d9653f", "#b98a1c"])
# Text on coloured cells: not in the palette, because the cell keeps its colour in the dark. Black and white, because of these the better
# one has a contrast of at least 4.58 to any colour.
ON_LIGHT, ON_DARK = "#000000", "#ffffff"

# Any: matplotlib's stubs want literal names of settings, which differ between its versions.
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    # A model may be called "$x_" or "a$b$": names are shown as they are.
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "consistency_lab",
    "pdf.fonttype": 42,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "white",
    "savefig.dpi": 160,
}


def themed(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a plot function under `STYLE`, on what a figure has a place for (`drawable`); the caller's settings of matplotlib stay."""

    @functools.wraps(plot)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            figure = plot(*map(drawable, args), **kwargs)
            for ax in figure.axes:
                for axis in (ax.xaxis, ax.yaxis):
                    for ticker in (axis.major, axis.minor):
                        if isinstance(ticker.formatter, LogFormatterMathtext):
                            ticker.formatter = _Powers(ticker.formatter)
                            ticker.formatter.set_axis(axis)
            return figure

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


def luminance(colour: Colour) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (WCAG 2.2)."""
    channels = np.array(to_rgb(colour), dtype=float)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: Colour, b: Colour) -> float:
    """Contrast of two colours, 1 to 21; WCAG 2.2 asks 4.5 of text and 3 of what is needed to use a control."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def ink_on(colour: Colour) -> str:
    """The colour of text on a cell of this colour."""
    return max((ON_LIGHT, ON_DARK), key=lambda ink: contrast(ink, colour))


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of ``width`` x ``height`` inches and its axes (rows, columns); options go to `Figure.subplots`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


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
    gap = size * 1.25 / 72 / max(box.height * figure.get_size_inches()[1] * 0.85, 0.1)
    for (_, text, colour), height in zip(ends, spread(heights, gap), strict=True):
        ax.text(1.012, height, text, color=colour, fontsize=size, va="center", ha="left", transform=ax.transAxes)


def note(ax: Axes, text: str) -> None:
    """Say in the middle of empty axes why nothing is drawn."""
    ax.text(0.5, 0.5, text, color=MUTED, ha="center", va="center", transform=ax.transAxes, wrap=True, style="italic")
