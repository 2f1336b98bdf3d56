"""A figure that is drawn gets the colours and the sizes of its look: a palette, text for paper, lines that fit, notes below."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill, wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from consistency_lab.errors import UserError
from consistency_lab.plots.colours import MUTED, SERIES, darkened
from consistency_lab.plots.look import LEAST, SHRINK, StyledFigure, current

IN_CELL = ("number", "interval", "reason")  # texts that may not be wider than a unit of the horizontal axis
BELOW = "below"  # a legend under the axes
_INSIDE = 0.92  # of a cell, for text: letters are not equally wide in all resolutions


def finish(figure: StyledFigure) -> None:
    """Give a figure that is drawn the palette and, for paper, the sizes of its look; once."""
    if figure.finished:
        return
    figure.finished = True
    if figure.look.palette is not None:
        _recolour(figure, figure.look.palette)
    if figure.look.paper:
        _shrink(figure)
        _wrap(figure)


def note_below(figure: Figure, text: str) -> None:
    """A remark under a figure that is drawn, in room that its layout leaves there; further ones come above the first."""
    wide, high = figure.get_size_inches()
    said = fill(text, int(72 * 0.96 * wide / (0.56 * LEAST)))
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    below = [legend for legend in figure.legends if legend.get_gid() == BELOW]
    foot, room = engine.get()["rect"][1], (1.3 * LEAST * (said.count("\n") + 1) + 2) / 72 / high
    figure.text(0.01, foot + 0.01 / high, said, fontsize=LEAST, color=MUTED, va="bottom")
    ground = foot + room
    for legend in below:  # matplotlib leaves room for one that stands on the foot of the figure, and for no other
        if foot == 0:
            figure.draw_without_rendering()
            legend.set_bbox_to_anchor((0, ground, 1, 1 - ground), transform=figure.transFigure)
            room += legend.get_window_extent().height / figure.bbox.height
    engine.set(rect=(0, foot + room, 1, 1 - foot - room))
    if current().paper:
        _wrap(figure)


def _recolour(figure: Figure, palette: Sequence[str]) -> None:
    """Exchange the colours of series for those of a palette, wherever they are. Text is darkened until it can be read."""
    used: set[int] = set()

    def other(colour: Any, text: bool = False) -> Any:
        """The colour in exchange, with the same opacity; None for what is of no series."""
        is_one = isinstance(colour, str | tuple | list | np.ndarray) and str(colour) not in ("none", "auto")
        if not is_one:
            return None
        shown = to_hex(colour)
        if shown not in SERIES:
            return None
        place = SERIES.index(shown)
        used.add(place)
        new = palette[place % len(palette)]
        opacity = to_hex(colour, keep_alpha=True)[7:]
        return f"{darkened(new) if text else new}{'' if opacity == 'ff' else opacity}"

    for artist in figure.findobj():
        if isinstance(artist, Text):
            _exchange(artist, "color", lambda colour: other(colour, text=True))
        elif isinstance(artist, Line2D):
            for what in ("markerfacecolor", "markeredgecolor", "color"):
                _exchange(artist, what, other)
        elif isinstance(artist, Patch):
            for what in ("facecolor", "edgecolor"):
                _exchange(artist, what, other)
        elif isinstance(artist, Collection) and artist.get_array() is None:
            for what in ("facecolor", "edgecolor"):
                old = getattr(artist, f"get_{what}")()
                if isinstance(old, np.ndarray) and len(old):
                    new = [other(each) or tuple(each) for each in old]
                    getattr(artist, f"set_{what}")(new)
    if used and max(used) >= len(palette):
        raise UserError(
            f"this figure needs a palette of {max(used) + 1} colours, and the one given has {len(palette)}."
        )


def _exchange(artist: Any, what: str, other: Any) -> None:
    new = other(getattr(artist, f"get_{what}")())
    if new is not None:
        getattr(artist, f"set_{what}")(new)


def _size(text: Text) -> float:
    """In points."""
    return float(text.get_fontsize())


def _shrink(figure: Figure) -> None:
    for artist in figure.findobj():
        if isinstance(artist, Text):
            artist.set_fontsize(max(LEAST, SHRINK * _size(artist)))
        elif isinstance(artist, Line2D):
            artist.set(linewidth=SHRINK * artist.get_linewidth(), markersize=SHRINK * artist.get_markersize())
        elif isinstance(artist, Patch):
            artist.set_linewidth(SHRINK * artist.get_linewidth())
        elif isinstance(artist, Axes):
            for axis in (artist.xaxis, artist.yaxis):
                tick = axis.get_major_ticks(1)[0]
                # Of those that are made later.
                axis.set_tick_params(labelsize=max(LEAST, SHRINK * _size(tick.label1)))


def _wrap(figure: Figure) -> None:
    """Break what is longer than its axes, or the figure."""
    figure.draw_without_rendering()  # the layout must be known
    wide, high = figure.get_size_inches()
    for ax in figure.axes:
        box = ax.get_position()
        # A label may reach over its axes a little, as far as the ticks do.
        for text, room in (
            (ax.xaxis.label, box.width * wide + 0.25), (ax.yaxis.label, box.height * high + 0.15),
            (ax.title, box.width * wide), (ax._left_title, box.width * wide),  # type: ignore[attr-defined]
        ):  # fmt: skip
            _broken(text, room)
        _fit_cells(ax)
    for text in figure.texts:
        _broken(text, 0.96 * wide)
    for legend in figure.findobj(Legend):
        for text in legend.get_texts():
            _broken(text, 0.85 * wide)


def _fit_cells(ax: Axes) -> None:
    """Make texts narrower that are wider than the cell of a table that they stand in (`IN_CELL`): smaller, then an interval in two lines.

    What still has no room is left out of all cells: it is in the data.
    """
    (left, foot), (right, top) = ax.transData.transform([(0, 0), (1, 1)])
    wide, high = _INSIDE * abs(right - left), abs(top - foot)
    numbers, intervals, _ = every = [[text for text in ax.texts if text.get_gid() == kind] for kind in IN_CELL]

    def over(texts: list[Text]) -> bool:
        return any(text.get_window_extent().width > wide for text in texts)

    for texts in every:
        for text in texts:
            text.set_visible(True)
            if over([text]):
                text.set_fontsize(LEAST)
    lines = numbers[0].get_window_extent().height + 2 * intervals[0].get_window_extent().height if intervals else 0.0
    if over(intervals) and lines < high:
        for text in intervals:
            text.set_text(str(text.get_text()).replace(" to ", "\n"))
        for text in numbers:
            text.set_y(round(text.get_position()[1]) - 0.27)
    for texts in every:
        if over(texts):
            for text in texts:
                text.set_visible(False)


def _broken(text: Text, room: float) -> None:
    """Lines of a text that are wider than ``room`` inches are broken between words."""
    letters = max(8, int(72 * room / (0.56 * _size(text))))
    text.set_text("\n".join(balanced(line, letters) for line in str(text.get_text()).split("\n")))


def balanced(line: str, most: int) -> str:
    """A line broken between words into as few lines of at most ``most`` letters as there can be, of about the same length."""

    def lines(letters: int) -> list[str]:
        return wrap(line, letters, break_long_words=False, break_on_hyphens=False)

    few = len(lines(most))
    return "\n".join(next(lines(each) for each in range(1, most + 1) if len(lines(each)) == few)) if few > 1 else line
