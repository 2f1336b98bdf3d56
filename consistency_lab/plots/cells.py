"""Tables of coloured cells: a number and its interval in each, names along both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from consistency_lab.intervals import Interval
from consistency_lab.plots.fitting import IN_CELL, balanced
from consistency_lab.plots.look import current
from consistency_lab.plots.theme import GRID, MUTED, Colour, ink_on

SMALL = 7.0  # points of an interval in a cell: no smaller, or it cannot be read on a screen
WIDE = 0.88  # inches of a cell that holds one with two minus signs
_SIDE = 0.96  # of a cell: what is left between two shows the page, which may be dark
_MIDDLE: dict[str, Any] = {"ha": "center", "va": "center"}
_NAMES = 16  # letters of a line of a name where there is little room


def cell(ax: Axes, x: float, y: float, found: Interval, colour: Colour, digits: int = 2, sign: str = "") -> None:
    """The number in ink that can be read on the colour, and below it its interval."""
    _square(ax, x, y, facecolor=colour, edgecolor="none")
    # + 0.0: no minus before zero
    number, low, high = (round(float(part), digits) + 0.0 for part in found)
    ends = f"{low:.{digits}f} to {high:.{digits}f}" if np.isfinite([low, high]).all() else "no interval"
    number_text, is_number, is_interval = f"{number:{sign}.{digits}f}", *IN_CELL[:2]
    for text, at, size, gid in ((number_text, y - 0.13, 9.5, is_number), (ends, y + 0.22, SMALL, is_interval)):
        ax.text(x, at, text.replace("-", "−"), fontsize=size, color=ink_on(colour), gid=gid, **_MIDDLE)


def empty_cell(ax: Axes, x: float, y: float, text: str = "undefined", hatch: str = "////", size: float = 6.5) -> None:
    """A cell without a number, and why."""
    _square(ax, x, y, facecolor="none", edgecolor=GRID, hatch=hatch)
    ax.text(x, y, text, fontsize=size, color=MUTED, gid=IN_CELL[2], **_MIDDLE)


def named(ax: Axes, places: Sequence[float], columns: Sequence[str], rows: Sequence[str]) -> None:
    """Cells at ``places`` from the left and at 0, 1, ... from the top, with their names."""
    ax.set_xlim(-0.5, max(places, default=0) + 0.5)
    ax.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    own = current()
    if own.paper:
        columns, rows = ([balanced(name, _NAMES) for name in names] for names in (columns, rows))
    # Lines of names would meet those of the next at a slant.
    turned = {"rotation": 90, "va": "center"} if own.narrow else {"rotation": 38}
    ax.set_xticks(places, columns, ha="right", rotation_mode="anchor", **turned)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _square(ax: Axes, x: float, y: float, **look: Any) -> None:
    ax.add_patch(Rectangle((x - _SIDE / 2, y - _SIDE / 2), _SIDE, _SIDE, **look))
